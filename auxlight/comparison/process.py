"""A run as a process. Only the standard library: a cluster ships this to workers that then import no torch for it."""

import fcntl
import hashlib
import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

POLL = 0.2  # seconds


def fit(
    words: list[str],
    about: dict[str, object],
    files: dict[str, str],
    folder: str,
    cwd: str,
    threads: int,
    hides_gpus: bool = False,
) -> bool:
    """Run `auxlight fit`, going on from its last checkpoint if there is one; its output goes to `log.txt`.

    Args:
        words: of the command line.
        about: what `run.json` says of the run, beside its command and when it started.
        files: that the words name, and the SHA-256 of their contents when the comparison began.
        folder: of the run.
        cwd: that all paths start from.
        threads: of the process, unless OMP_NUM_THREADS says another number.
        hides_gpus: whether it sees none.

    Returns:
        Whether it is finished.

    Raises:
        BlockingIOError: another process is at this run.
        RuntimeError: a file has changed meanwhile: what would run is not what the folder is named after.
    """
    home, last = Path(cwd, folder), Path(folder, "checkpoints", "last.ckpt")
    home.mkdir(parents=True, exist_ok=True)
    with (home / "run.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the run inherits it, and may outlive this process
        except BlockingIOError:
            raise BlockingIOError(f"another process is at {folder}") from None
        if (home / "result.json").is_file():  # another process has been at it
            return True
        for path, digest in files.items():
            if hashlib.sha256(Path(cwd, path).read_bytes()).hexdigest() != digest:
                raise RuntimeError(f"{path} has changed since the comparison began: start it again")
        if Path(cwd, last).is_file():
            words = [*words, f"--ckpt_path={last}"]
        about = {**about, "command": shlex.join(["auxlight", *words]), "started": time.time()}
        part = home / "run.json.part"
        part.write_text(json.dumps(about, indent=2) + "\n")
        part.replace(home / "run.json")
        environment = {**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS") or str(threads)}
        if hides_gpus:
            environment["CUDA_VISIBLE_DEVICES"] = ""
        quiet = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]
        command = [sys.executable, "-m", "auxlight", *words, *quiet]
        with (home / "log.txt").open("a") as log:
            process = subprocess.Popen(
                command, stdout=log, stderr=log, env=environment, cwd=cwd, pass_fds=[lock.fileno()]
            )
            try:
                while process.poll() is None:  # a cluster interrupts Python, but no wait for a process
                    time.sleep(POLL)
            finally:
                process.kill()
                if process.wait() < 0:  # nobody else says so
                    print(f"auxlight fit was killed by signal {-process.returncode}", file=log)
        return (home / "result.json").is_file()
