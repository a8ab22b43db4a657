import math

import lightning as L
import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, precision_recall_fscore_support
from torch import nn
from torch.optim import SGD, Adam
from torch.optim.lr_scheduler import OneCycleLR, ReduceLROnPlateau, StepLR
from torchvision.models import resnet18

from auxlight import (
    VGG,
    AgentLabels,
    AuxiliaryClassifier,
    AuxiliaryTarget,
    Batch,
    DigitsDataModule,
    HumanLabels,
    InputError,
    Labeler,
    MultiHeadVGG,
    RandomLabels,
    UniformLabels,
)
from tests.quiet import TRAINER

# All data is in memory, and a small run has fewer batches than Lightning's logging interval.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*smaller than the logging interval"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning"),  # Lightning's use of torch
]

PSI = (2, 3)


class TinyTrunk(nn.Sequential):
    """The mean colour of four quarters, and one layer."""

    feature_dim = 8

    def __init__(self) -> None:
        super().__init__(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, 8), nn.Tanh())


class Told(Labeler):
    """Soft labels and weights of the test's own making."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(5)
        self.target = AuxiliaryTarget(
            torch.randn(6, 5, generator=generator).softmax(-1), 8 * torch.rand(6, generator=generator)
        )

    def forward(self, batch: Batch, features: torch.Tensor) -> AuxiliaryTarget:
        return self.target


def make_batch() -> Batch:
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(6, 3, 32, 32, generator=generator)
    return Batch(image, torch.tensor([0, 1, 1, 0, 1, 0]), torch.tensor([1, 2, 4, 0, 3, 1]), torch.arange(6) + 10)


def make_module(labeler: Labeler | None = None, **arguments) -> AuxiliaryClassifier:
    torch.manual_seed(0)
    return AuxiliaryClassifier(PSI, TinyTrunk(), labeler=labeler, **arguments)


def make_labeler(name: str) -> Labeler:
    return {
        "human": HumanLabels,
        "random": lambda: RandomLabels(seed=0),
        "uniform": UniformLabels,
        "agent": lambda: AgentLabels(weighted=True, trunk=VGG(11, 0.0625, norm="group"), untrained=True),
        "told": Told,
    }[name]()


def expected_targets(name: str, labeler: Labeler, batch: Batch) -> tuple[np.ndarray, np.ndarray]:
    """Soft labels and weights, worked out beside the labeler where there is another way to them."""
    ones = np.ones(6)
    if name == "human":
        return np.eye(5)[batch.auxiliary.numpy()], ones
    if name == "uniform":
        return np.array(
            [[[1 / 2, 1 / 2, 0, 0, 0], [0, 0, 1 / 3, 1 / 3, 1 / 3]][y] for y in batch.primary.tolist()]
        ), ones
    if name == "agent":
        logits = labeler.network(batch.image).detach().double().numpy()
        rows = []
        for y, label in zip(batch.primary.tolist(), logits[:, :5].argmax(1).tolist(), strict=True):
            block = [[0, 1], [2, 3, 4]][y]
            powers = [math.exp(k == label) if k in block else 0.0 for k in range(5)]
            rows.append([power / sum(powers) for power in powers])
        return np.array(rows), 2 ** (10 * (logits[:, 5:].argmax(1) / 20) - 5)
    target = labeler(batch, torch.zeros(6, 8))  # fixed random labels, or told ones
    return target.probabilities.double().numpy(), target.weight.double().numpy()


def focal(logits: torch.Tensor, target: np.ndarray, gamma: float) -> np.ndarray:
    power = np.exp(logits.detach().double().numpy())
    p = power / power.sum(1, keepdims=True)
    return -(target * (1 - p) ** gamma * np.log(p)).sum(1)


def expected_loss(module: AuxiliaryClassifier, name: str, batch: Batch, aux_weight: float, gamma: float) -> float:
    features = module.trunk(batch.image)
    targets, weights = expected_targets(name, module.labelled_task.labeler, batch)
    primary = focal(module.primary_head(features), np.eye(2)[batch.primary.numpy()], gamma)
    auxiliary = focal(module.tasks[0].head(features), targets, gamma)
    return primary.mean() + aux_weight * (weights * auxiliary).mean()


@pytest.mark.parametrize("name", ["human", "random", "uniform", "agent", "told"])
@pytest.mark.parametrize(("aux_weight", "gamma"), [(1.0, 2.0), (0.0, 2.0), (4.0, 0.0), (0.5, 1.5)])
def test_training_loss(name, aux_weight, gamma):
    labeler = make_labeler(name)
    module, batch = make_module(labeler, aux_weight=aux_weight, focal_gamma=gamma), make_batch()
    if name == "agent":
        labeler.network.action_head.weight.data.normal_()
    expected = expected_loss(module, name, batch, aux_weight, gamma)
    assert module.step(batch).loss.item() == pytest.approx(expected, rel=1e-5)


def test_weights_belong_to_samples():
    """A weight averaged over the batch would give the same loss whoever holds it."""
    labeler, batch = Told(), make_batch()
    module = make_module(labeler)
    swapped = labeler.target.weight.flip(0)
    before = module.step(batch).loss.item()
    labeler.target = labeler.target._replace(weight=swapped)
    after = module.step(batch).loss.item()
    assert after == pytest.approx(expected_loss(module, "told", batch, 1, 2), rel=1e-5)
    assert abs(after - before) > 1e-3


def test_training_step_returns_the_training_loss(monkeypatch):
    module, batch = make_module(Told()), make_batch()
    monkeypatch.setattr(module, "log_dict", lambda *args, **kwargs: None)  # logging needs a trainer
    torch.testing.assert_close(module.training_step(batch, 0), module.step(batch).loss, rtol=0, atol=0)


def shared_weights(module: AuxiliaryClassifier) -> list[nn.Parameter]:
    return [module.trunk[2].weight, module.primary_head[0].weight, module.tasks[0].head[0].weight]


@pytest.mark.parametrize("name", ["human", "random", "uniform", "agent", "told"])
def test_gradient_reaches_trunk_and_both_heads(name):
    module = make_module(make_labeler(name))
    module.step(make_batch()).loss.backward()
    assert all(weight.grad.abs().sum() > 0 for weight in shared_weights(module))


def test_gradient_by_central_differences():
    module, batch = make_module(Told()).double(), make_batch()
    batch = batch._replace(image=batch.image.double())
    module.step(batch).loss.backward()
    for weight in shared_weights(module):
        losses = []
        for step in (1e-6, -2e-6):
            with torch.no_grad():
                weight[0, 0] += step
            losses.append(module.step(batch).loss.item())
        assert weight.grad[0, 0].item() == pytest.approx((losses[0] - losses[1]) / 2e-6, rel=1e-5, abs=1e-8)


def test_auxiliary_task_alone_moves_the_trunk_but_not_the_primary_head():
    module, batch = make_module(Told()), make_batch()
    features = module.features(batch.image)
    losses = module.task_losses(features, module.primary_head(features), batch)
    losses.auxiliary[0].sum().backward()
    assert module.trunk[2].weight.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in module.primary_head.parameters())


def test_single_task_has_no_auxiliary_parameters():
    module, batch = make_module(), make_batch()
    expected = focal(module(batch.image), np.eye(2)[batch.primary.numpy()], 2).mean()
    assert module.step(batch).loss.item() == pytest.approx(expected, rel=1e-5)
    assert module.labelled_task is None and len(module.tasks) == 0
    assert {name.split(".")[0] for name in module.state_dict()} == {"trunk", "primary_head"}
    held = {id(p) for group in module.configure_optimizers().param_groups for p in group["params"]}
    assert held == {id(p) for part in (module.trunk, module.primary_head) for p in part.parameters()}


def test_any_trunk():
    torch.manual_seed(0)
    module = AuxiliaryClassifier(PSI, resnet18(num_classes=16), feature_dim=16, labeler=HumanLabels())
    batch = Batch(*(part[:2] for part in make_batch()))
    assert module(batch.image).shape == (2, 2)
    module.step(batch).loss.backward()
    assert module.trunk.conv1.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("feature_dim", [7, 9, 1])
def test_wrong_feature_size(feature_dim):
    module = AuxiliaryClassifier(PSI, TinyTrunk(), feature_dim=feature_dim)
    with pytest.raises(InputError, match=rf"Found feature_dim={feature_dim} and features of shape \(6, 8\)"):
        module(make_batch().image)


def test_features_that_are_no_vectors():
    module = AuxiliaryClassifier(PSI, nn.Identity(), feature_dim=3)
    with pytest.raises(InputError, match=r"features of shape \(6, 3, 32, 32\)"):
        module.step(make_batch())


def test_unknown_feature_size():
    with pytest.raises(
        InputError, match=r"`feature_dim` must be given for a trunk that does not carry it. Found Flatten"
    ):
        AuxiliaryClassifier(PSI, nn.Flatten())


@pytest.mark.parametrize("name", ["aux_weight", "focal_gamma"])
@pytest.mark.parametrize("value", [-0.1, math.nan, math.inf, -math.inf])
def test_factors_out_of_range(name, value):
    with pytest.raises(InputError, match=f"`{name}` must be a finite number ≥ 0. Found {name}={value}"):
        make_module(HumanLabels(), **{name: value})


class Rates(L.Callback):
    """The learning rate of each step, and the monitored loss of each epoch."""

    def __init__(self) -> None:
        self.rates: list[float] = []
        self.losses: list[float] = []

    def on_train_batch_start(self, trainer, *args) -> None:
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    def on_validation_epoch_end(self, trainer, *args) -> None:
        self.losses.append(trainer.callback_metrics["val/primary_loss"].item())


def rates_of(scheduler, interval: str) -> Rates:
    """Three epochs of two steps."""
    seen = Rates()
    data = DigitsDataModule(batch_size=64, num_train=128)
    module = AuxiliaryClassifier(
        data.hierarchy,
        TinyTrunk(),
        labeler=HumanLabels(),
        optimizer=lambda params: SGD(params, lr=0.1),
        scheduler=scheduler,
        scheduler_interval=interval,
    )
    L.Trainer(**TRAINER, max_epochs=3, num_sanity_val_steps=0, callbacks=[seen]).fit(module, data)
    assert len(seen.rates) == 6
    return seen


def test_scheduler_each_epoch():
    rates = rates_of(lambda optimizer: StepLR(optimizer, 1, 0.5), "epoch").rates
    assert rates == pytest.approx([0.1, 0.1, 0.05, 0.05, 0.025, 0.025])


def test_scheduler_each_step():
    rates = rates_of(lambda optimizer: OneCycleLR(optimizer, 1.0, total_steps=6), "step").rates
    optimizer = SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    alone, expected = OneCycleLR(optimizer, 1.0, total_steps=6), []
    for _ in range(6):
        expected.append(alone.get_last_lr()[0])
        optimizer.step()
        if len(expected) < 6:
            alone.step()
    assert rates == pytest.approx(expected)
    assert max(rates) > 5 * rates[0]


def test_scheduler_that_watches_the_validation_loss():
    # After the first no loss is ever better by 100, so the rate falls after the second epoch.
    rates = rates_of(
        lambda o: ReduceLROnPlateau(o, factor=0.5, patience=0, threshold=100, threshold_mode="abs"), "epoch"
    )
    assert rates.rates == pytest.approx([0.1, 0.1, 0.1, 0.1, 0.05, 0.05])
    assert len(rates.losses) == 3
    module = make_module(scheduler=ReduceLROnPlateau)
    assert module.configure_optimizers()["lr_scheduler"]["monitor"] == "val/primary_loss"


@pytest.fixture(scope="module")
def digits_run():
    """Two epochs on real digits, then test and predict."""
    L.seed_everything(0, verbose=False)
    data = DigitsDataModule(batch_size=64, num_train=640)
    module = MultiHeadVGG(
        data.hierarchy, depth=11, width=0.0625, labeler=HumanLabels(), optimizer=lambda params: Adam(params, lr=3e-3)
    )
    trainer = L.Trainer(**TRAINER, max_epochs=2)
    trainer.fit(module, data)
    fitted = {key: value.item() for key, value in trainer.callback_metrics.items()}
    tested = trainer.test(module, data, verbose=False)[0]
    predictions = trainer.predict(module, data)
    index, primary, probabilities = (torch.cat(parts) for parts in zip(*predictions, strict=True))
    return module, data, fitted, tested, (index, primary, probabilities)


METRICS = ("accuracy", "precision", "recall", "f1", "primary_loss", "auxiliary_accuracy")


def test_metrics_are_logged(digits_run):
    _, _, fitted, tested, _ = digits_run
    extra = {"train/loss", "train/auxiliary_loss", "train/weight_mean", "train/weight_std"}
    assert set(fitted) == {f"{stage}/{name}" for stage in ("train", "val") for name in METRICS} | extra
    assert set(tested) == {f"test/{name}" for name in METRICS}
    assert all(map(math.isfinite, [*fitted.values(), *tested.values()]))
    assert fitted["train/loss"] == pytest.approx(
        fitted["train/primary_loss"] + fitted["train/auxiliary_loss"], rel=1e-5
    )
    assert (fitted["train/weight_mean"], fitted["train/weight_std"]) == (1, 0)


def test_predictions_cover_the_test_set(digits_run):
    _, _, _, _, (index, primary, probabilities) = digits_run
    assert index.tolist() == list(range(360))
    torch.testing.assert_close(probabilities.sum(1), torch.ones(360))
    assert primary.tolist() == [row.index(max(row)) for row in probabilities.tolist()]


def test_metrics_agree_with_scikit_learn(digits_run):
    _, data, _, tested, (_, primary, _) = digits_run
    truth = data.load_split(train=False).primary.numpy()
    predicted = primary.numpy()
    assert len(set(predicted.tolist())) == 2  # else the averages are trivial
    precision, recall, f1, _ = precision_recall_fscore_support(truth, predicted, average="macro")
    assert tested["test/accuracy"] == pytest.approx(accuracy_score(truth, predicted), abs=1e-6)
    assert tested["test/precision"] == pytest.approx(precision, abs=1e-6)
    assert tested["test/recall"] == pytest.approx(recall, abs=1e-6)
    assert tested["test/f1"] == pytest.approx(f1, abs=1e-6)


def test_other_test_values_by_hand(digits_run):
    module, data, _, tested, (_, _, probabilities) = digits_run
    p = probabilities.double().numpy()[range(360), data.load_split(train=False).primary.numpy()]
    assert tested["test/primary_loss"] == pytest.approx((-((1 - p) ** 2) * np.log(p)).mean(), rel=1e-4)
    module.eval()
    right = 0
    with torch.no_grad():
        for raw in data.test_dataloader():
            batch = data.pipeline(raw)
            right += (module.tasks[0].head(module.trunk(batch.image)).argmax(1) == batch.auxiliary).sum().item()
    assert tested["test/auxiliary_accuracy"] == pytest.approx(right / 360, abs=1e-6)


def test_no_auxiliary_metrics_without_human_labels():
    data = DigitsDataModule(batch_size=64, num_train=64)
    data.setup()
    for dataset in data._splits.values():
        object.__setattr__(dataset.images, "auxiliary", None)
    module = AuxiliaryClassifier(data.hierarchy, TinyTrunk(), labeler=UniformLabels())
    trainer = L.Trainer(**TRAINER, max_epochs=1)
    trainer.fit(module, data)
    assert "val/accuracy" in trainer.callback_metrics
    assert not any("auxiliary_accuracy" in key for key in trainer.callback_metrics)
