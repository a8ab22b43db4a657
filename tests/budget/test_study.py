"""The simulation and the command line, with trainings that cost nothing, and one that is real."""

import json
import threading
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from auxlight import InputError
from auxlight.budget import (
    BudgetStudy,
    DigitTasks,
    Estimator,
    JointClassifier,
    JointTraining,
    LabelType,
    NpzTasks,
    Plan,
    TaskData,
    TaskImages,
    Training,
    compare,
    relative_gain,
)
from auxlight.budget.estimate import measured
from auxlight.budget.joint import _Batch
from auxlight.budget.ledger import Ledger, described
from auxlight.budget.simulate import bought
from auxlight.cli import main
from auxlight.networks import VGG, LeNet
from tests.test_cli import mirrors  # noqa: F401

COUNTS = (10, 20, 30, 40)


class Toy(TaskData):
    """Images whose pixels are their labels; task c is noise."""

    def load(self):
        def part(count, seed):
            generator = torch.Generator().manual_seed(seed)
            a = torch.randint(2, (count,), generator=generator)
            b = torch.randint(3, (count,), generator=generator)
            c = torch.randint(2, (count,), generator=generator)
            image = torch.zeros(count, 3, 16, 16, dtype=torch.uint8)
            image[:, 0] = (100 * a)[:, None, None]
            image[:, 1] = (100 * b)[:, None, None]
            return TaskImages(image, {"a": a, "b": b, "c": c})

        self.train, self.test = part(200, 0), part(100, 1)
        self.classes = {"a": 2, "b": 3, "c": 2}


class PlantedTraining(Training):
    """Right by a share that rises with the labels of its own task; beside task a, task b is right more often."""

    trainings = 0
    limit: int | None = None

    def __call__(self, train, classes, tasks, seed):
        type(self).trainings += 1
        if self.limit is not None and self.trainings > self.limit:
            raise KeyboardInterrupt
        known = {task: int((train.labels[task] >= 0).sum()) for task in tasks}

        def predict(image):
            generator = torch.Generator().manual_seed(seed + len(image) + sum(known.values()))
            answers = {}
            truth = {"a": image[:, 0, 0, 0].long() // 100, "b": image[:, 1, 0, 0].long() // 100}
            for task in tasks:
                share = 0.95 - 0.5 * 0.9 ** (known[task] / 10)
                if task == "b" and "a" in tasks:
                    share = share * 1.15
                right = torch.randperm(len(image), generator=generator) < len(image) * (share if task != "c" else 0.5)
                answers[task] = torch.where(right, truth.get(task, torch.zeros(len(image)).long()), 9)
            return answers

        return predict


def toy():
    data = Toy()
    data.load()
    return data


TYPES = [LabelType("a", cost=2), LabelType("b", cost=1, available=50), LabelType("c", cost=1, priority=0)]


def study(folder, training=None, **options):
    PlantedTraining.trainings = 0
    parts = {"estimator": Estimator(seeds=3, counts=COUNTS), "training": training or PlantedTraining(), "seed_size": 80}
    return BudgetStudy(Toy(), TYPES, 100, folder=folder, **parts | options)


def test_a_planted_helper_is_worth_its_labels_and_noise_is_not(tmp_path):
    found = study(tmp_path, estimator=Estimator(seeds=12, counts=COUNTS)).estimate()
    assert found.related[0, 1] > 0.05  # a helps b
    assert found.related[2, :2].max() < 0.05 and found.related[1, 0] < 0.05
    assert found.information[0] > found.information[1] > found.information[2]


def test_counts_supply_and_budget_are_kept_by_every_plan(tmp_path):
    mine = study(tmp_path)
    plans = mine.plans(mine.estimate())
    assert [plan.strategy for plan in plans][:2] == ["TABA", "equal counts"] and len(plans) == 7
    for plan in plans:
        assert plan.spend <= 100 and plan.counts["b"] <= 50 and max(plan.counts.values()) <= 120
    best = mine.expected(plans[0], mine.estimate())
    assert all(mine.expected(plan, mine.estimate()) <= best + 1e-9 for plan in plans)


def test_bought_labels_are_nested_and_nothing_else_is_known():
    data = Toy()
    data.load()
    seed_set = torch.arange(20)
    small, large = (bought(data.train, seed_set, Plan({"a": a, "b": 5, "c": 0}, 0, 0, "x"), seed=3) for a in (10, 30))
    for images, a in ((small, 10), (large, 30)):
        assert [(images.labels[name] >= 0).sum() for name in "abc"] == [20 + a, 25, 20]
        for name in "abc":
            known = images.labels[name] >= 0
            assert torch.equal(images.labels[name][known], data.train.labels[name][known])
    assert set((small.labels["a"] >= 0).nonzero()[:, 0].tolist()) < set(
        (large.labels["a"] >= 0).nonzero()[:, 0].tolist()
    )
    other = bought(data.train, seed_set, Plan({"a": 10, "b": 5, "c": 0}, 0, 0, "x"), seed=4)
    assert not torch.equal(other.labels["a"], small.labels["a"])


def test_a_missing_label_costs_nothing_and_gives_no_gradient():
    torch.manual_seed(0)
    image = torch.rand(6, 3, 16, 16)
    module = JointClassifier(LeNet(8), {"a": 2, "b": 3}, 1e-3)
    a, b = torch.tensor([0, 1, -1, -1, 1, -1]), torch.tensor([2, -1, -1, 0, 1, -1])
    loss = module.training_step(_Batch(image, {"a": a, "b": b}), 0)
    logits = module(image)
    by_hand = [
        sum(-logits[name].log_softmax(1)[i, label[i]] for i in range(6) if label[i] >= 0) / int((label >= 0).sum())
        for name, label in (("a", a), ("b", b))
    ]
    torch.testing.assert_close(loss, sum(by_hand))
    # Images without any label, and a task without any image, leave no trace.
    without = module.training_step(_Batch(image[:5], {"a": a[:5], "b": b[:5]}), 0)
    torch.testing.assert_close(loss, without)
    nothing = module.training_step(_Batch(image, {"a": a, "b": torch.full((6,), -1)}), 0)
    module.zero_grad()
    nothing.backward()
    torch.testing.assert_close(nothing, by_hand[0])
    assert all(p.grad is None or not p.grad.any() for p in module.heads[1].parameters())


def test_real_networks_learn_what_is_there_to_learn():
    data = Toy()
    data.load()
    training = JointTraining(steps=60, batch_size=32)
    one, other = (training(data.train, data.classes, ["a", "b", "c"], 5)(data.test.image) for _ in range(2))
    assert all(torch.equal(one[task], other[task]) for task in "abc")  # a function of the seed
    right = {task: float((one[task] == data.test.labels[task]).float().mean()) for task in "abc"}
    assert right["a"] > 0.95 and right["b"] > 0.9 and right["c"] < 0.7


def test_a_simulation_repeats_no_training_and_goes_on_where_it_stopped(tmp_path, monkeypatch):
    whole = study(tmp_path / "whole").simulate(seeds=2)
    needed = PlantedTraining.trainings
    again = study(tmp_path / "whole").simulate(seeds=2)
    assert PlantedTraining.trainings == 0 and again == whole
    broken = study(tmp_path / "broken")
    monkeypatch.setattr(PlantedTraining, "limit", needed // 2)
    with pytest.raises(KeyboardInterrupt):
        broken.simulate(seeds=2)
    monkeypatch.undo()
    # As when the power fails in the middle of a line.
    with (tmp_path / "broken" / "trainings.jsonl").open("a") as file:
        file.write('["estimate 0/0/sing')
    resumed = study(tmp_path / "broken").simulate(seeds=2)
    assert resumed == whole
    assert PlantedTraining.trainings <= needed - needed // 2 + 4  # networks that made pseudo-labels are made again


class Inverted(Toy):
    """Other images of the same number."""

    def load(self):
        super().load()
        self.train = TaskImages(255 - self.train.image, self.train.labels)


@pytest.mark.parametrize(
    "change",
    [
        {"estimator": Estimator(seeds=4, counts=COUNTS)},
        {"data": Inverted()},
        {"training": JointTraining(steps=2, trunk=partial(LeNet, feature_dim=8))},
        {"seed_size": 90},
    ],
)
def test_results_of_another_study_are_not_taken(change, tmp_path):
    study(tmp_path).estimate()
    parts = {"estimator": Estimator(seeds=3, counts=COUNTS), "training": PlantedTraining(), "seed_size": 80}
    parts = {"data": Toy()} | parts | change
    with pytest.raises(InputError, match="must be of this study"):
        BudgetStudy(types=TYPES, budget=100, folder=tmp_path, **parts).estimate()


def test_trunks_with_other_arguments_are_told_apart():
    trunks = [partial(LeNet, feature_dim=8), partial(LeNet, feature_dim=16), partial(VGG, 11), LeNet]
    assert len({json.dumps(described(JointTraining(trunk=trunk))) for trunk in trunks}) == 4


class Scaled:
    def __init__(self, factor):
        self.factor = factor

    def score(self, predicted, true):
        return self.factor * float((predicted == true).float().mean())


def test_what_a_study_is_made_of_is_told_apart():
    """Numbers of numpy, arrays and tensors by what they hold; functions without a name by what they do."""

    def scaled(factor):
        return lambda predicted, true: factor * float((predicted == true).float().mean())

    different = [
        [np.int64(100), np.int64(1000), 2.5],
        [torch.ones(2), torch.zeros(2), torch.ones(2, dtype=torch.int64), torch.ones(1, 2)],
        [np.ones(2), np.zeros(2), np.array([[1.0, 1.0]])],
        [lambda x: x + 1, lambda x: x + 2, lambda x: x * 1, lambda x, y=1: x + 1],
        [scaled(1), scaled(2)],
        [Scaled(1).score, Scaled(2).score, partial(Scaled(2).score, 0)],
        [Path("a"), Path("b")],
        [{1, 2}, {1, 3}, frozenset({1, 2})][:2],
        [torch.ones(2, dtype=torch.bfloat16), torch.ones(2)],
    ]
    for parts in different:
        assert len({json.dumps(described(part)) for part in parts}) == len(parts), parts
    assert described(np.int64(3)) == described(3) and described(scaled(1)) == described(scaled(1))
    holder = SimpleNamespace(rate=1)
    holder.make = lambda: holder.rate  # holds itself
    other = SimpleNamespace(rate=2)
    other.make = lambda: other.rate
    assert json.dumps(described(holder)) != json.dumps(described(other))
    assert described(nn.BatchNorm1d(2)) == described(nn.BatchNorm1d(2))
    with pytest.raises(InputError, match=r"must tell what it holds.*_thread\.lock"):
        described(threading.Lock())


def test_held_out_images_without_a_label_do_not_count():
    """Some of a task's may have none, as in training."""
    true = torch.tensor([0, 1, -1, -1, 1])
    images = TaskImages(torch.zeros(5, 3, 2, 2), {"a": true, "none": torch.full((5,), -1)})
    predicted = {"a": torch.tensor([0, 1, 0, 1, 0]), "none": torch.zeros(5)}
    assert measured(accuracy, predicted, images, "a") == pytest.approx(2 / 3)
    with pytest.raises(InputError, match="Found none for task 'none'"):
        measured(accuracy, predicted, images, "none")


def accuracy(predicted, true):
    assert (true >= 0).all()
    return float((predicted == true).float().mean())


def test_other_prices_need_no_new_trainings(tmp_path):
    first = study(tmp_path)
    first.estimate()
    types = [LabelType("a", cost=7), *TYPES[1:]]
    again = BudgetStudy(
        Toy(), types, 100, seed_size=80, folder=tmp_path, estimator=first.estimator, training=PlantedTraining()
    )
    PlantedTraining.trainings = 0
    again.plans(again.estimate())
    assert PlantedTraining.trainings == 0


def test_metrics_that_are_no_numbers_are_not_written_down(tmp_path):
    broken = Estimator(seeds=3, counts=COUNTS, metric=NoNumber())
    with pytest.raises(InputError, match="nan for task 'a'"):
        study(tmp_path, estimator=broken).estimate()
    assert "NaN" not in (tmp_path / "trainings.jsonl").read_text()


class NoNumber:
    def __call__(self, predicted, true):
        return float("nan")


def test_gains_and_intervals_are_those_of_scipy():
    gains = {"TABA": [0.1, 0.3, 0.2, 0.25], "other": [0.05, 0.1, 0.2, 0.0]}
    rows = compare(gains)
    first, second = (np.array(values) for values in gains.values())
    low, high = stats.ttest_1samp(second, 0).confidence_interval()
    assert (rows[1].gain - rows[1].interval, rows[1].gain + rows[1].interval) == pytest.approx((low, high))
    low, high = stats.ttest_rel(first, second).confidence_interval()
    assert (rows[1].behind - rows[1].behind_interval, rows[1].behind + rows[1].behind_interval) == pytest.approx(
        (low, high)
    )
    assert rows[0].behind == rows[0].behind_interval == 0
    types = [LabelType("a", priority=3), LabelType("b", priority=1)]
    assert relative_gain({"a": 0.6, "b": 0.4}, {"a": 0.5, "b": 0.5}, types) == pytest.approx((3 * 0.2 - 0.2) / 4)


def test_digits_imply_their_tasks():
    data = DigitTasks()
    data.load()
    assert len(data.train) == 1437 and len(data.test) == 360
    digit = data.train.labels["digit"]
    assert torch.equal(data.train.labels["parity"], digit % 2)
    assert data.train.labels["size"][digit == 3].unique().tolist() == [0]
    assert data.train.labels["size"][digit == 6].unique().tolist() == [1]
    assert data.train.labels["loops"][digit == 8].unique().tolist() == [2]
    noise = data.train.labels["noise"].double()
    assert abs(float(torch.corrcoef(torch.stack([noise, digit.double()]))[0, 1])) < 0.08
    assert data.train.image.shape[1:] == (3, 16, 16)


def own_arrays(path, missing=None):
    toy = Toy()
    toy.load()
    arrays = {"train_images": toy.train.image.permute(0, 2, 3, 1).numpy()}
    for name in "abc":
        label = toy.train.labels[name].numpy().copy()
        label[80:] = -1
        if name == missing:
            label[:] = -1
        arrays[f"train_{name}"] = label
    np.savez(path, **arrays)
    return NpzTasks(path)


def test_labels_that_are_really_to_be_bought_make_a_plan_but_no_simulation(tmp_path):
    data = own_arrays(tmp_path / "own.npz")
    estimator = Estimator(seeds=3, counts=COUNTS)
    mine = BudgetStudy(data, TYPES, 100, estimator=estimator, training=PlantedTraining(), folder=tmp_path / "study")
    assert mine.seed_size == 80 and not mine.is_simulation
    assert mine.plans(mine.estimate())[0].spend <= 100
    # Images of which some labels are known already: those are not bought again.
    data.train.labels["a"][80:180] = 1
    supply = [plan.counts["a"] for plan in mine.plans(mine.estimate())]
    assert max(supply) <= 20
    with pytest.raises(InputError, match="all known"):
        mine.simulate()


@pytest.mark.parametrize(
    ("make", "part"),
    [
        (lambda f: BudgetStudy(Toy(), [LabelType("d")], 9, folder=f), "'d'"),
        (lambda f: BudgetStudy(Toy(), TYPES, 9, main="d", folder=f), "'d'"),
        (lambda f: BudgetStudy(Toy(), TYPES, 0.5, folder=f), "`budget`"),
        (lambda f: BudgetStudy(Toy(), TYPES, 9, seed_size=200, folder=f), "seed set"),
        (lambda f: BudgetStudy(own_arrays(f / "own.npz", "b"), TYPES, 9, folder=f), "no label of 'b'"),
        (lambda f: study(f, estimator=Estimator(counts=(10, 20, 300))).estimate(), "`counts`"),
        (lambda f: study(f, estimator=Estimator(counts=COUNTS, metric=lambda *_: float("nan"))).estimate(), "finite"),
        (lambda f: study(f).simulate(seeds=0), "`seeds`"),
        (lambda f: BudgetStudy(Toy(), [LabelType("a", priority=0)], 9, folder=f), "`priority`"),
        (
            lambda f: JointTraining(steps=1, trunk=torch.nn.Flatten)(toy().train, toy().classes, ["a"], 0),
            "`feature_dim`",
        ),
        (lambda f: Estimator(seeds=2), "`seeds`"),
        (lambda f: Estimator(counts=[1, 2]), "`counts`"),
        (lambda f: Estimator(held_out=1.0), "`held_out`"),
        (lambda f: JointTraining(steps=0), "`steps`"),
        (lambda f: TaskImages(torch.zeros(2, 3, 4, 4), {"a": torch.zeros(3)}), "one label per image"),
        (lambda f: NpzTasks(f / "none.npz").load(), "`path`"),
    ],
)
def test_each_mistake_gets_one_line(make, part, tmp_path):
    with pytest.raises(InputError) as error:
        make(tmp_path)
    assert part in str(error.value) and "\n" not in str(error.value)


def test_a_ledger_keeps_what_it_was_given(tmp_path):
    path = tmp_path / "a" / "ledger.jsonl"
    ledger = Ledger(path, {"x": 1})
    assert ledger.get("k", lambda: [0.1]) == [0.1] and "k" in ledger
    assert Ledger(path, {"x": 1}).get("k", lambda: pytest.fail("computed again")) == [0.1]
    path.write_text(path.read_text()[:4])  # cut off within its first line
    assert Ledger(path, {"x": 1}).get("k", lambda: [0.2]) == [0.2]
    assert len(path.read_text().splitlines()) == 2


@pytest.fixture
def yaml(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["auxlight"])
    Path("study.yaml").write_text(
        "data: tests.budget.test_study.Toy\n"
        "types: [{name: a, cost: 2}, {name: b, available: 50}, {name: c, priority: 0}]\n"
        "budget: 100\nseed_size: 80\nfolder: here\n"
        "estimator: {class_path: auxlight.budget.Estimator, init_args: {seeds: 3, counts: [10, 20, 30]}}\n"
        "training: {class_path: tests.budget.test_study.PlantedTraining}\n"
    )
    return "study.yaml"


def test_the_command_line_prints_and_writes_a_plan(yaml, capsys):
    main(["budget", "--config", yaml])
    printed = capsys.readouterr().out
    plan = json.loads(Path("here/plan.json").read_text())
    assert [row["name"] for row in plan["types"]] == list("abc") and plan["plans"][0]["strategy"] == "TABA"
    assert all(plan["spend"] <= 100 for plan in plan["plans"])
    for row in plan["types"]:
        (line,) = [line for line in printed.splitlines() if line.startswith(f"{row['name']} ")]
        assert line.split()[-2:] == [str(row["count"]), f"{row['spend']:g}"]
    assert "cheapest first" in printed and "100%" in printed


class Stubborn(Training):
    """Learns nothing, however many labels it is given."""

    def __call__(self, train, classes, tasks, seed):
        return lambda image: {task: torch.arange(len(image)) % classes[task] for task in tasks}


def test_where_nothing_can_be_told_from_the_curves_it_is_said(yaml, capsys):
    main(["budget", "--config", yaml, "--training", "tests.budget.test_study.Stubborn"])
    printed = capsys.readouterr().out
    assert "more tells nothing" in printed and "the plan buys nothing" in printed
    assert json.loads(Path("here/plan.json").read_text())["plans"][0]["spend"] == 0


def test_the_command_line_simulates(yaml, capsys):
    main(["budget", "simulate", "--config", yaml, "--seeds", "2", "--output", "out/found.json"])
    printed = capsys.readouterr().out
    found = json.loads(Path("out/found.json").read_text())
    assert found["seeds"] == 2 and set(found["gains"]) == {row["strategy"] for row in found["comparison"]}
    assert "±" in printed and "main only" in printed


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["--budget", "0.5"], "`budget`"),
        (["--types", "[{name: a, cost: 0}]"], "`cost`"),
        (["--types", "[{name: a, available: -1}]"], "`available`"),
        (["--main", "z"], "'z'"),
        (["--data", "auxlight.budget.CIFAR100Levels"], "cifar100.npz"),
        (["--nonsense", "1"], "nonsense"),
        (["--output", "."], "`output`"),
        (["--folder", "study.yaml"], "study.yaml"),
    ],
)
def test_a_mistake_on_the_command_line_ends_with_one_line(yaml, words, part, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["budget", "--config", yaml, *words])
    error = capsys.readouterr().err.strip().splitlines()
    assert stop.value.code == 2 and len(error) == 1 and part in error[0], error


def test_levels_of_cifar100_imply_one_another(mirrors):  # noqa: F811
    from auxlight.budget import CIFAR100Levels

    data = CIFAR100Levels(mirrors)
    data.load()
    assert {name: int(label.max()) + 1 for name, label in data.train.labels.items()} == data.classes
    assert len({(int(a), int(b)) for a, b in zip(data.train.labels["100"], data.train.labels["3"], strict=True)}) == 100
