"""Every method and every control gets the same tuning, by validation alone."""

import json
from pathlib import Path

import pytest

from auxlight import InputError
from auxlight.comparison import Comparison, Method, Tuning
from auxlight.comparison.check import check_arguments
from auxlight.comparison.report import write_report
from auxlight.comparison.results import table
from auxlight.comparison.tuning import as_arguments
from tests.comparison.test_compare import CONFIGS, TINY, Common, fit_here, pretend

LR = "model.optimizer.init_args.lr"


def study(folder, budget=4, **options):
    methods = {
        "single": Method([str(CONFIGS / "single.yaml")], control=True, grid={"model.aux_weight": []}),
        "human": Method([str(CONFIGS / "human.yaml")]),
    }
    tuning = Tuning({LR: [0.01, 0.05, 0.1], "model.aux_weight": [1.0, 4.0]}, budget, [100])
    scale = Common([str(CONFIGS / "data/digits.yaml"), str(CONFIGS / "small.yaml")], [*TINY, "--trainer.max_epochs=1"])
    return Comparison(methods, [0, 1], common=scale, tuning=tuning, folder=folder, **options)


def test_a_method_tries_its_grid_or_as_much_of_it_as_the_budget_allows():
    mine = study("x")
    assert mine.settings("single") == [{LR: 0.01}, {LR: 0.05}, {LR: 0.1}]
    tried = mine.settings("human")
    assert len(tried) == 4 and tried == mine.settings("human") and len({json.dumps(one) for one in tried}) == 4
    assert all(one.keys() == {LR, "model.aux_weight"} for one in tried)
    assert len(study("x", budget=9).settings("human")) == 6
    names = [(run.method, run.seed, tuple(run.setting.values())) for run in mine.tuning_runs()]
    assert len(names) == len(set(names)) == 7 and all(seed == 100 for _, seed, _ in names)
    assert not any(run.reads_test for run in mine.tuning_runs())


def test_each_pair_of_values_is_tried_equally_often():
    """Of three arguments with two values each, four settings can do so; of 1,000 draws one does."""
    tried = Tuning({"a": [1, 2], "b": [3, 4], "c": [5, 6]}, 4).settings({})
    for first, second in (("a", "b"), ("a", "c"), ("b", "c")):
        assert len({(one[first], one[second]) for one in tried}) == 4
    tried = Tuning({"a": [1, 2, 3], "b": [4, 5], "c": [6, 7]}, 6).settings({})
    assert sorted(one["a"] for one in tried) == [1, 1, 2, 2, 3, 3]
    assert all(len({(one["a"], one[name]) for one in tried}) == 6 for name in "bc")


def test_validation_chooses_and_fresh_seeds_run_the_choice(tmp_path):
    mine = study(tmp_path)
    with pytest.raises(InputError, match="Found unfinished: tuning data/single/seed 100"):
        mine.runs()
    for run in mine.tuning_runs():
        # What the test set would say is never looked at.
        good = run.setting[LR] == 0.05 and run.setting.get("model.aux_weight") != 4.0
        pretend(run, test=0.9 if not good else 0.1, validation=0.8 if good else 0.6)
    assert mine.chosen("data", "single") == {LR: 0.05}
    best = mine.chosen("data", "human")
    assert best[LR] == 0.05 or {LR: 0.05, "model.aux_weight": 1.0} not in mine.settings("human")
    runs = mine.runs()
    assert [run.seed for run in runs] == [0, 0, 1, 1] and all(run.reads_test for run in runs)
    assert f"--{LR}=0.05" in runs[0].words and runs[0].setting == {LR: 0.05}
    assert "tuning" not in str(runs[0].folder.relative_to(tmp_path))
    for run in runs:
        pretend(run, 0.7)
    page = write_report(mine).read_text()
    assert "tried up to 4 settings with 1 seed(s)" in page and "| single | 3 | lr 0.05 |" in page
    assert json.loads(table(mine)["setting"][0]) == {LR: 0.05}


def test_where_there_is_nothing_to_choose_nothing_is_tried():
    methods = {name: Method([str(CONFIGS / f"{name}.yaml")], control=name == "single") for name in ("single", "human")}
    methods["human"].grid[LR] = [0.1, 0.05, 0.1]
    mine = Comparison(methods, [0], tuning=Tuning(seeds=[100, 101]), folder="x")
    assert [(run.method, run.seed, run.setting[LR]) for run in mine.tuning_runs()] == [
        ("human", 100, 0.1), ("human", 100, 0.05), ("human", 101, 0.1), ("human", 101, 0.05)
    ]  # fmt: skip
    assert [run.method for run in mine.runs_so_far()] == ["single"]


def test_equal_settings_leave_the_first():
    assert Tuning({"a": [1, 2]}, 2).settings({}) == [{"a": 1}, {"a": 2}]
    assert Tuning({"a": [1]}).settings({"a": []}) == [{}]
    assert as_arguments({"a.b": 0.5, "c": True, "d": "x"}) == ["--a.b=0.5", "--c=true", "--d=x"]


def test_real_runs_are_tuned_without_a_look_at_the_test_set(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr("sys.argv", ["auxlight"])
    scale = Common([str(CONFIGS / "data/digits.yaml"), str(CONFIGS / "small.yaml")], [*TINY, "--trainer.max_epochs=1"])
    methods = {"single": Method([str(CONFIGS / "single.yaml")], control=True)}
    mine = Comparison(methods, [0], common=scale, tuning=Tuning({LR: [1e-9, 0.05]}, 2, [100]), folder=tmp_path)
    fit_here(*mine.tuning_runs())
    assert "test/accuracy" not in capfd.readouterr().out
    for run in mine.tuning_runs():
        result = json.loads(run.result.read_text())
        assert result["test"] == {} and len(result["epochs"]) == 1 and result["validation"] > 0
    scores = [json.loads(run.result.read_text())["validation"] for run in mine.tuning_runs()]
    assert mine.chosen("data", "single") == {LR: [1e-9, 0.05][scores.index(max(scores))]}


@pytest.mark.parametrize(
    ("make", "part"),
    [
        (lambda: Tuning(budget=0), "`budget`"),
        (lambda: Tuning(seeds=[]), "`seeds`"),
        (lambda: Tuning(seeds=[100, 100]), "seeds=[100, 100]"),
        (
            lambda: Comparison(
                {"single": Method([str(CONFIGS / "single.yaml")], control=True)}, [0, 7], tuning=Tuning(seeds=[7])
            ),
            "[7]",
        ),
    ],
)
def test_each_mistake_gets_one_line(make, part):
    with pytest.raises(InputError) as error:
        make()
    assert part in str(error.value) and "\n" not in str(error.value)


def test_the_command_line_reads_a_tuning(tmp_path, monkeypatch, capsys):
    from auxlight.cli import main

    monkeypatch.setattr("sys.argv", ["auxlight"])
    monkeypatch.setattr(
        "auxlight.comparison.cli.run_all", lambda runs, *_, **__: [pretend(run, 0.6) for run in runs][:0]
    )
    path = tmp_path / "study.yaml"
    path.write_text(
        f"methods:\n  single: {{configs: ['{CONFIGS}/single.yaml'], control: true}}\n"
        f"  human: {{configs: ['{CONFIGS}/human.yaml'], grid: {{model.aux_weight: [1, 4]}}}}\n"
        f"tuning: {{grid: {{{LR}: [0.01, 0.1]}}, budget: 4, seeds: [100, 101]}}\n"
        f"seeds: [0, 1]\nfolder: {tmp_path}/out\n"
    )
    main(["compare", "--config", str(path)])
    printed = capsys.readouterr().out
    assert "with 2 seed(s)" in printed and "| human | 4 | lr 0.01, aux_weight 1 |" in printed
    assert len(list(Path(tmp_path / "out/tuning").rglob("result.json"))) == 2 * (2 + 4)


def test_a_value_that_fit_does_not_accept_is_found_before_the_first_run(tmp_path):
    methods = {"single": Method([str(CONFIGS / "single.yaml")], control=True)}
    mine = Comparison(methods, [0], tuning=Tuning({"model.focal_gamma": [0, 2, "twoo"]}), folder=tmp_path)
    with pytest.raises(InputError, match=r"does not accept what data/single gives it.*twoo"):
        check_arguments(mine.known_runs())
