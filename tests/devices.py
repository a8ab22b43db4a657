"""Two processes, each of which is a device to Lightning; they meet over a file, so that no port can be taken."""

import os
import time
from datetime import timedelta
from multiprocessing import connection, get_context

import pytest
import torch
from torch import distributed as dist

DEADLINE = 180  # seconds for both processes, after which they are deadlocked
SERVER = get_context("forkserver")
SERVER.set_forkserver_preload(["auxlight"])  # imported once for all processes


def on_two_devices(work, folder):
    """What `work` returns in each of two processes."""
    processes = [SERVER.Process(target=on_device, args=(work, rank, folder), daemon=True) for rank in range(2)]
    end = time.monotonic() + DEADLINE
    try:
        for process in processes:
            process.start()
        running = list(processes)
        while running and not any(process.exitcode for process in processes):
            if not connection.wait([process.sentinel for process in running], end - time.monotonic()):
                pytest.fail(f"{work.__name__}: not done within {DEADLINE} s")
            running = [process for process in running if process.is_alive()]
    finally:
        for process in processes:  # one that waits for the other would wait on
            process.kill()
            process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


def on_device(work, rank, folder):
    os.environ["LOCAL_RANK"] = str(rank)  # Lightning then starts no process itself
    torch.set_num_threads(1)
    meeting = {"init_method": (folder / "meeting").as_uri(), "timeout": timedelta(seconds=DEADLINE)}
    dist.init_process_group("gloo", rank=rank, world_size=2, **meeting)
    torch.save(work(), folder / f"{rank}.pt")
    dist.destroy_process_group()
