"""A run's process, with a script in the place of Python: it says what it was called with."""

import _thread
import hashlib
import json
import signal
import sys
import threading
import time

import pytest

from auxlight.comparison.process import fit


def python(tmp_path, monkeypatch, text):
    script = tmp_path / "python"
    script.write_text(f"#!/bin/sh\n{text}\n")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)


def run(tmp_path, **options):
    return fit(["fit", "--x=a b"], {"method": "m"}, options.pop("files", {}), "runs/m", str(tmp_path), 3, **options)


def test_it_runs_where_it_is_told_and_is_finished_when_there_is_a_result(tmp_path, monkeypatch):
    python(
        tmp_path, monkeypatch, 'printf "%s|" "$PWD" "$OMP_NUM_THREADS" "$@"; test -f done && touch runs/m/result.json'
    )
    assert not run(tmp_path)
    about = json.loads((tmp_path / "runs/m/run.json").read_text())
    assert about.pop("started") == pytest.approx(time.time(), abs=60)
    assert about == {"method": "m", "command": "auxlight fit '--x=a b'"}
    (tmp_path / "done").touch()
    (tmp_path / "runs/m/checkpoints").mkdir()
    (tmp_path / "runs/m/checkpoints/last.ckpt").touch()
    assert run(tmp_path)
    first, second = (tmp_path / "runs/m/log.txt").read_text().split(str(tmp_path))[1:]
    assert first.startswith("|3|-m|auxlight|fit|--x=a b|--trainer.") and "ckpt" not in first
    assert "--ckpt_path=runs/m/checkpoints/last.ckpt|" in second


def test_what_another_process_has_finished_is_not_begun(tmp_path, monkeypatch):
    python(tmp_path, monkeypatch, "echo begun")
    (tmp_path / "runs/m").mkdir(parents=True)
    (tmp_path / "runs/m/result.json").touch()
    assert run(tmp_path) and not (tmp_path / "runs/m/log.txt").exists()


def test_a_config_that_has_changed_since_is_refused(tmp_path, monkeypatch):
    """Else its result would lie in the folder of what it was before."""
    python(tmp_path, monkeypatch, "echo begun")
    config = tmp_path / "m.yaml"
    config.write_text("lr: 0.01\n")
    files = {"m.yaml": hashlib.sha256(config.read_bytes()).hexdigest()}
    run(tmp_path, files=files)
    config.write_text("lr: 0.5\n")
    with pytest.raises(RuntimeError, match=r"m.yaml has changed since the comparison began"):
        run(tmp_path, files=files)
    assert (tmp_path / "runs/m/log.txt").read_text() == "begun\n"


@pytest.mark.parametrize(("given", "threads"), [("5", "5"), ("", "3")])
def test_its_threads_are_the_environments_if_that_names_a_number(given, threads, tmp_path, monkeypatch):
    """OpenMP takes an empty value for as many threads as there are cores, and runs side by side crawl."""
    python(tmp_path, monkeypatch, 'echo "$OMP_NUM_THREADS threads"')
    monkeypatch.setenv("OMP_NUM_THREADS", given)
    run(tmp_path)
    assert (tmp_path / "runs/m/log.txt").read_text() == f"{threads} threads\n"


@pytest.mark.parametrize(("hides", "seen"), [(True, ""), (False, "5")])
def test_it_may_see_no_gpu(hides, seen, tmp_path, monkeypatch):
    python(tmp_path, monkeypatch, 'echo "GPU $CUDA_VISIBLE_DEVICES."')
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5")
    run(tmp_path, hides_gpus=hides)
    assert (tmp_path / "runs/m/log.txt").read_text() == f"GPU {seen}.\n"


def test_a_process_that_is_killed_is_on_record(tmp_path, monkeypatch):
    python(tmp_path, monkeypatch, "kill -9 $$")
    assert not run(tmp_path)
    assert "killed by signal 9" in (tmp_path / "runs/m/log.txt").read_text()


def test_an_interruption_ends_the_process_as_well(tmp_path, monkeypatch):
    python(tmp_path, monkeypatch, "echo started; exec sleep 30")
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    threading.Timer(0.5, _thread.interrupt_main).start()  # as a cluster cancels a task
    begin = time.monotonic()
    try:
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path)
    finally:
        signal.signal(signal.SIGINT, before)
    assert time.monotonic() - begin < 20
    assert (tmp_path / "runs/m/log.txt").read_text().splitlines()[-1] == "auxlight fit was killed by signal 9"
