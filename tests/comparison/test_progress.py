"""What is said of runs that go on: where they are, and how long they will take."""

import io
import json
import random
import re
import sys

import pytest

from auxlight.comparison import Processes, run_all
from auxlight.comparison.progress import LiveView, Sight, in_words, seconds_left, sight_of
from tests.comparison.test_compare import comparison, pretend


def sights(*rows):
    return [Sight("digits", *row) for row in rows]


def test_an_epoch_takes_what_it_took_in_finished_runs_of_the_method():
    runs = sights(("a", "finished", 4, 4, 2.0), ("a", "finished", 4, 4, 4.0), ("b", "finished", 4, 4, 100.0))
    runs += sights(("a", "running", 1, 4, 50.0), ("a", "waiting"))
    assert seconds_left(runs, 1) == (3 + 4) * 3.0


@pytest.mark.parametrize(
    ("others", "rate"),
    [
        ([("a", "finished", 4, 4, 2.0)], 2.0),
        ([("b", "finished", 4, 4, 2.0), ("a", "running", 4, 4, 5.0)], 7.0),  # its own
        ([("b", "finished", 4, 4, 2.0)], 7.0),
    ],
)
def test_else_as_in_the_run_itself(others, rate):
    assert seconds_left(sights(*others, ("a", "running", 2, 10, 7.0)), 2) == 8 * rate


def test_else_as_in_a_running_one_else_in_other_methods_else_in_other_data():
    waiting = Sight("digits", "a", "waiting")
    like, other = Sight("digits", "a", "failed", 3, 10, 5.0), Sight("digits", "b", "finished", 20, 20, 2.0)
    elsewhere = Sight("svhn", "a", "finished", 30, 30, 1.5)
    assert seconds_left([waiting, like, other, elsewhere], 1) == 10 * 5.0
    assert seconds_left([waiting, other, elsewhere], 1) == 20 * 2.0
    assert seconds_left([waiting, elsewhere], 1) == 30 * 1.5


def test_a_run_that_waits_has_to_start_first():
    runs = sights(
        ("a", "running", 2, 4, 1.0, 9.0), ("a", "running"), ("b", "waiting"), ("b", "waiting", 1, 4, 1.0, 9.0)
    )
    assert seconds_left(runs, 1) == 2 + (9 + 4) + (9 + 4) + (9 + 3)


def test_nothing_is_said_before_an_epoch_has_ended():
    assert seconds_left(sights(("a", "running", 0, 4), ("b", "waiting")), 2) is None
    assert seconds_left(sights(("a", "running", 1, None, 2.0)), 2) is None  # who knows how many epochs
    assert seconds_left(sights(("a", "finished", 4, 4, 1.0), ("b", "failed", 0, 4)), 2) == 0


def test_slots_are_filled_as_they_become_free():
    """Against a clock that ticks."""
    draw = random.Random(3)
    for _ in range(20):
        slots = draw.randint(1, 4)
        left = [draw.randint(1, 9) for _ in range(draw.randint(slots, 12))]
        runs = sights(
            ("a", "finished", 10, 10, 1.0),
            *(("a", "running" if i < slots else "waiting", 10 - n, 10) for i, n in enumerate(left)),
        )
        queue, busy, clock = list(left), [], 0
        while queue or busy:
            while queue and len(busy) < slots:
                busy.append(queue.pop(0))
            busy, clock = [n - 1 for n in busy if n > 1], clock + 1
        assert seconds_left(runs, slots) == clock


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(None, "not known yet"), (0.2, "1 s"), (89, "89 s"), (90, "2 min"), (5370, "1 h 30 min"), (7205, "2 h 0 min")],
)
def test_a_time_in_words(seconds, words):
    assert words in in_words(seconds)


def write(run, first, epoch, start=100.0, time=130.0, started=80.0):
    run.folder.mkdir(parents=True, exist_ok=True)
    at = {"first": first, "epoch": epoch, "epochs": 8, "start": start, "time": time}
    (run.folder / "progress.json").write_text(json.dumps(at))
    (run.folder / "run.json").write_text(json.dumps({"started": started}))


def test_a_folder_says_how_far_its_run_is(tmp_path):
    (run,) = comparison(tmp_path, "single").runs()
    assert sight_of(run, "waiting") == Sight("data", "single", "waiting")
    write(run, first=2, epoch=5)
    assert sight_of(run, "running") == ("data", "single", "running", 5, 8, 10.0, 20.0)
    assert sight_of(run, "finished") == ("data", "single", "finished", 5, 5, 10.0, 20.0)
    write(run, first=2, epoch=2, started=200.0)  # began anew, and does not train yet
    assert sight_of(run, "running") == ("data", "single", "running", 2, 8, None, None)


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_on_a_terminal_it_is_redrawn(tmp_path, monkeypatch):
    first, second, third = comparison(tmp_path, "single", "human", "uniform").runs()
    pretend(first, 0.5)
    write(first, 0, 8, time=180.0, started=100.0)
    write(second, 0, 3, started=100.0)  # interrupted
    monkeypatch.setattr(sys, "stderr", Terminal())
    with LiveView([first, second, third], 1) as view:
        assert "1 of 3 finished, 2 waiting, about 2 min left" in sys.stderr.getvalue()
        assert "epoch" not in sys.stderr.getvalue()
        write(second, 3, 4, start=150.0, time=180.0, started=150.0)
        view.show()
        assert "1 of 3 finished, 1 running, 1 waiting, about 3 min left" in sys.stderr.getvalue()
        assert "data/human/seed 0: epoch 5 of 8" in sys.stderr.getvalue()
        view.ended(second, "see log.txt")
        view.show()
        assert "failed: data/human/seed 0, see log.txt" in sys.stderr.getvalue()
        assert "1 of 3 finished, 1 failed, 1 waiting, about 80 s left" in sys.stderr.getvalue()


def test_in_a_log_each_run_that_ends_is_a_line(tmp_path, capsys):
    first, second, third = comparison(tmp_path, "single", "human", "uniform").runs()
    with LiveView([first, second, third], 2) as view:
        assert view.interval is None
        view.show()
        pretend(first, 0.5)
        write(first, 0, 8, time=180.0, started=100.0)
        view.ended(first)
        view.ended(second, "see log.txt")
    assert capsys.readouterr().err.splitlines() == [
        "finished: data/single/seed 0 (runs: 1 of 3 finished, 2 waiting, about 80 s left)",
        "failed: data/human/seed 0, see log.txt (runs: 1 of 3 finished, 1 failed, 1 waiting, about 80 s left)",
    ]


def test_real_runs_say_where_they_are(tmp_path, capsys):
    runs = comparison(tmp_path, "single", "uniform", epochs=2).runs()
    assert run_all(runs, Processes(2)) == []
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and "2 of 2 finished" in lines[1] and "left" not in lines[1]
    for run in runs:
        at = json.loads((run.folder / "progress.json").read_text())
        result = json.loads(run.result.read_text())
        assert (at["first"], at["epoch"], at["epochs"]) == (0, 2, 2)
        seen = sight_of(run, "finished")
        assert seen.rate > result["seconds"] / 2 and 1 < seen.lead < 120
        assert at["time"] - at["start"] >= result["seconds"]
    assert re.search(r"1 of 2 finished, 1 (running|waiting), about \d+ s left", lines[0])
