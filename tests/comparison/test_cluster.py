"""`auxlight compare --ray`: the same runs as tasks of a cluster."""

import os
import subprocess
import sys
import time

import pandas as pd
import pytest

from auxlight import InputError
from auxlight.cli import main
from auxlight.comparison import Processes, RayCluster, run_all
from auxlight.comparison.results import table
from tests.comparison.test_compare import CONFIGS, comparison


def processes():
    """Parents of all processes that are alive, by their ids."""
    words = ["ps", "-eo", "pid=,ppid=,stat="]
    listed = subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()
    return {int(pid): int(parent) for pid, parent, state in map(str.split, listed) if state[0] != "Z"}


def descendants(ancestor):
    parents, found = processes(), {ancestor}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {ancestor}


class Watched(RayCluster):
    """Remembers its processes."""

    def __exit__(self, *error):
        self.processes = descendants(os.getpid())
        super().__exit__(*error)


@pytest.mark.ray
def test_a_ray_cluster_of_two_workers_gives_the_table_of_this_machine(tmp_path, monkeypatch):
    pytest.importorskip("ray")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # sums in another order are other numbers
    here, there = (comparison(tmp_path / name, "single", "human") for name in ("here", "there"))
    cluster = Watched("local", jobs=2)
    assert run_all(here.runs(), Processes(2)) == [] and run_all(there.runs(), cluster) == []
    times = ["seconds", "cpu_seconds", "seconds_per_epoch", "commit"]
    ours, theirs = (table(study).drop(columns=times) for study in (here, there))
    assert len(ours) == 2
    pd.testing.assert_frame_equal(ours, theirs, check_exact=True)
    assert cluster.slots == 2 and len(cluster.processes) > 3
    end = time.monotonic() + 20
    while cluster.processes & processes().keys():
        assert time.monotonic() < end
        time.sleep(0.2)


@pytest.mark.ray
def test_a_run_that_fits_on_no_machine_is_refused():
    ray = pytest.importorskip("ray")
    with pytest.raises(InputError, match="gpus_per_run=1000"), RayCluster("local", gpus_per_run=1000, jobs=1):
        pass
    assert not ray.is_initialized()


@pytest.mark.ray
def test_an_address_without_a_cluster_gets_one_line():
    pytest.importorskip("ray")
    with pytest.raises(InputError, match="Found ray='nowhere'"), RayCluster("nowhere"):
        pass


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"cpus_per_run": 0}, "`cpus_per_run`"),
        ({"gpus_per_run": -0.5}, "`gpus_per_run`"),
        ({"gpus_per_run": 1.5}, "`gpus_per_run`"),
        ({"jobs": 0}, "`jobs`"),
        ({"address": "auto", "jobs": 2}, "ray='auto'"),
    ],
)
def test_each_mistake_gets_one_line(options, part):
    with pytest.raises(InputError) as error:
        RayCluster(**options)
    assert part in str(error.value) and "\n" not in str(error.value)


def test_without_ray_the_command_line_says_how_to_get_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.chdir(CONFIGS.parent)
    with pytest.raises(SystemExit):
        main(["compare", "--config=configs/compare/digits.yaml", f"--folder={tmp_path}", "--ray=local"])
    assert "pip install 'auxlight[ray]'" in capsys.readouterr().err and not list(tmp_path.iterdir())
