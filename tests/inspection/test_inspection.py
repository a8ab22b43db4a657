import copy
import io
import random
from pathlib import Path

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from auxlight import (
    AgentLabels,
    AuxiLearnModule,
    AuxiliaryClassifier,
    Batch,
    DigitsDataModule,
    ExemplarTask,
    HumanLabels,
    InputError,
    Inspection,
    LabelNetwork,
    MAXLModule,
    MultiHeadVGG,
    NpzDataModule,
    RandomLabels,
    RLAuxCallback,
    RotationTask,
    UniformLabels,
)
from auxlight.functional import decided_label
from auxlight.inspection import Board, FeatureProjector, LabelGrids, LabelUsage, TaskGradients, View
from auxlight.inspection.heatmap import heatmap
from auxlight.inspection.record import LabelRecorder
from tests.quiet import TRAINER

SMALL = {"depth": 11, "width": 0.0625}


def data(**options):
    return DigitsDataModule(**{"num_train": 100, "batch_size": 25} | options)


def fit(module, loggers, epochs=2, callbacks=(), inspection=None, source=None):
    inspection = inspection or Inspection(every_n_epochs=2, num_images=30)
    trainer = L.Trainer(**TRAINER | {"logger": loggers}, max_epochs=epochs, callbacks=[*callbacks, inspection])
    trainer.fit(module, source or data())
    return trainer


def events(folder):
    found = EventAccumulator(str(folder), size_guidance={"images": 0, "histograms": 0})
    found.Reload()
    return found


LABELERS = {
    "human": HumanLabels(),
    "random": RandomLabels(fixed=False),
    "uniform": UniformLabels(),
    "agent": AgentLabels(weighted=True),
    "none": None,
}


@pytest.mark.parametrize("name", LABELERS)
def test_each_labeler_leaves_its_pictures(name, tmp_path):
    module = MultiHeadVGG((5, 5), labeler=copy.deepcopy(LABELERS[name]), **SMALL)
    logger = TensorBoardLogger(tmp_path, name=None, version="")
    fit(module, logger, callbacks=[RLAuxCallback()] if name == "agent" else [])
    found = events(tmp_path)
    images, scalars = set(found.Tags()["images"]), set(found.Tags()["scalars"])
    assert "confusion/primary" in images and "gradients/primary_norm" in scalars
    labelled = {"label_grid/even", "label_grid/odd", "label_usage", "confusion/human_and_learned"}
    numbers = {"labels/confidence", "labels/decided", "gradients/labelled_cosine"}
    if name not in ("uniform", "none"):  # which decide nothing
        numbers |= {"labels/effective", "labels/human_nmi"}
    assert (labelled <= images, numbers <= scalars) == (name != "none", name != "none")
    assert ("label_weights" in found.Tags()["histograms"]) == (name != "none")
    assert (tmp_path / "projector_config.pbtxt").is_file()
    (folder,) = tmp_path.glob("*/features")
    header, *rows = (folder / "metadata.tsv").read_text().splitlines()
    assert header.split("\t")[:3] == ["primary", "predicted", "human label"]
    assert ("learned label" in header) == (name != "none")
    assert len(rows) == len((folder / "tensors.tsv").read_text().splitlines()) == 30
    assert all(("even" in row.split("\t")[0]) == (int(row.split("\t")[2]) % 2 == 0) for row in rows)


@pytest.mark.parametrize("kind", [MAXLModule, AuxiLearnModule])
@pytest.mark.filterwarnings("ignore:The label network steps every")
def test_bilevel_modules_are_looked_at_as_well(kind, tmp_path):
    module = kind((5, 5), labeler=LabelNetwork(weighted=kind is MAXLModule), **SMALL)
    fit(module, TensorBoardLogger(tmp_path, name=None, version=""), source=data(meta_split=0.2, batch_size=16))
    found = events(tmp_path)
    assert ("label_weights/against_primary_loss" in found.Tags()["images"]) == (kind is MAXLModule)


def test_human_labels_agree_with_themselves(tmp_path):
    fit(MultiHeadVGG((5, 5), labeler=HumanLabels(), **SMALL), TensorBoardLogger(tmp_path, name=None, version=""))
    found = events(tmp_path)
    last = {tag: found.Scalars(tag)[-1].value for tag in found.Tags()["scalars"]}
    assert last["labels/human_nmi"] == pytest.approx(1) and last["labels/human_ari"] == pytest.approx(1)
    assert last["labels/decided"] == last["labels/confidence"] == 1
    assert last["labels/effective"] == pytest.approx(5, abs=0.05)  # 10 images of each of five digits, about


class Seen(L.Callback):
    """All that an inspection might disturb, after each epoch and at the end."""

    def __init__(self):
        self.states = []

    def on_train_epoch_start(self, trainer, module):
        self.states.append(self.state(trainer, module))

    def on_fit_end(self, trainer, module):
        self.states.append(self.state(trainer, module))

    def state(self, trainer, module):
        return [
            {name: value.clone() for name, value in module.state_dict().items()},
            copy.deepcopy(trainer.optimizers[0].state_dict()),
            torch.get_rng_state(),
            np.random.get_state()[1].copy(),
            random.getstate(),
            [part.training for part in module.modules()],
            {name: float(value) for name, value in trainer.callback_metrics.items()},
        ]


def same(one, other):
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return np.array_equal(np.asarray(one), np.asarray(other))


@pytest.mark.parametrize(
    "make",
    [
        lambda: MultiHeadVGG(
            (5, 5), labeler=RandomLabels(fixed=False), tasks=[ExemplarTask(), RotationTask()], **SMALL
        ),
        lambda: MAXLModule((5, 5), **SMALL),
        lambda: MultiHeadVGG((5, 5), labeler=AgentLabels(shared_trunk=True), **SMALL),
    ],
    ids=["drawing tasks", "MAXL", "agent"],
)
def test_a_fit_that_is_looked_at_is_the_fit_that_is_not(make, tmp_path):
    seen = []
    for every in (1, 0):
        L.seed_everything(3, verbose=False)
        module, watch = make(), Seen()
        callbacks = [RLAuxCallback()] if isinstance(getattr(module.labelled_task, "labeler", 0), AgentLabels) else []
        logger = TensorBoardLogger(tmp_path / str(every), name=None, version="")
        fit(module, logger, 2, [*callbacks, watch], Inspection(every_n_epochs=every, num_images=20))
        seen.append(watch.states)
    assert len(seen[0]) == 3
    assert same(*seen)
    assert "confusion/primary" in events(tmp_path / "1").Tags()["images"]
    assert "confusion/primary" not in events(tmp_path / "0").Tags()["images"]


class Smooth(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3 * 32 * 32, 4)

    def forward(self, image):
        return self.layer(image.flatten(1)).tanh()


def test_gradients_are_those_of_the_losses(tmp_path):
    """|g| = d L(θ + t g/|g|)/dt, and cos = d L_pri(θ + t g_aux/|g_aux|)/dt / |g_pri|: central differences, float64."""
    module = AuxiliaryClassifier((5, 5), Smooth(), feature_dim=4, labeler=HumanLabels(), aux_weight=0.7)
    kept = {}

    class Probe(View):
        def show(self, evidence, board):
            kept["evidence"] = evidence
            TaskGradients(num_images=16).show(evidence, self)

        def scalars(self, values):
            kept.update(values)

    fit(module, TensorBoardLogger(tmp_path), 1, inspection=Inspection(1, 30, [Probe()]))
    batch = kept["evidence"].batch
    module.double()
    weights = list(module.trunk.parameters())

    def losses():
        features = module.trunk(batch.image[:16].double())
        means = []
        for head, truth in ((module.primary_head, batch.primary), (module.tasks[0].head, batch.auxiliary)):
            log_p = head(features).log_softmax(1)[torch.arange(16), truth[:16]]
            means.append((-((1 - log_p.exp()) ** 2) * log_p).mean())  # focal loss, γ = 2
        return torch.stack([means[0], 0.7 * means[1]])

    def slopes(direction):
        """Of both losses."""
        found = 0
        with torch.no_grad():
            for sign in (1, -1):
                for weight, part in zip(weights, direction, strict=True):
                    weight += sign * 1e-5 * part
                found = found + sign * losses() / 2e-5
                for weight, part in zip(weights, direction, strict=True):
                    weight -= sign * 1e-5 * part
        return found

    def unit(mean):
        parts = torch.autograd.grad(mean, weights, retain_graph=True)
        return [part / torch.cat([p.flatten() for p in parts]).norm() for part in parts]

    primary, auxiliary = losses()
    norm = slopes(unit(primary))[0]
    of_primary, own = slopes(unit(auxiliary))
    assert kept["gradients/primary_norm"] == pytest.approx(float(norm), rel=1e-4)
    assert kept["gradients/labelled_norm"] == pytest.approx(float(own), rel=1e-4)
    assert kept["gradients/labelled_cosine"] == pytest.approx(float(of_primary / norm), abs=1e-4)


def test_the_label_record_is_what_trained(tmp_path):
    module = MultiHeadVGG((5, 5), labeler=RandomLabels(), **SMALL)
    kept = []

    class Keep(View):
        def show(self, evidence, board):
            kept.append(evidence.trained)

    fit(module, TensorBoardLogger(tmp_path), 1, inspection=Inspection(1, 10, [Keep()]))
    (trained,) = kept
    assert len(trained.index) == len(set(trained.index.tolist())) == 100
    batch = Batch(torch.zeros(100, 1), trained.primary, trained.human, trained.index)
    again = module.labelled_task.labeler(batch, None)
    assert torch.equal(trained.label, again.probabilities.argmax(1))


def test_of_partly_labelled_batches_the_labelled_images_are_recorded(tmp_path):
    kept = []

    class Keep(View):
        def show(self, evidence, board):
            kept.append(evidence.trained)

    module = MultiHeadVGG((5, 5), labeler=HumanLabels(), **SMALL)
    source = data(num_labelled=40, labelled_share=0.4)
    fit(module, TensorBoardLogger(tmp_path), 1, inspection=Inspection(1, 10, [Keep()]), source=source)
    (trained,) = kept
    assert len(trained.index) == 4 * 10 and int(trained.primary.min()) >= 0
    assert torch.equal(trained.label, trained.human)


def test_without_labels_nothing_is_recorded():
    assert LabelRecorder().labels() is None


def test_other_loggers_get_the_numbers_and_no_harm(tmp_path):
    fit(MultiHeadVGG((5, 5), labeler=HumanLabels(), **SMALL), CSVLogger(tmp_path, name=None, version=""))
    assert "labels/human_nmi" in (tmp_path / "metrics.csv").read_text().splitlines()[0]
    assert not list(tmp_path.rglob("*.png")) and not list(tmp_path.rglob("*tfevents*"))


def test_without_a_logger_nobody_looks():
    seen = []

    class Never(View):
        def show(self, evidence, board):
            seen.append(board)

    fit(MultiHeadVGG((5, 5), **SMALL), False, 1, inspection=Inspection(1, 10, [Never()]))
    assert not seen


def test_it_is_time_every_n_epochs_and_at_the_end(tmp_path):
    shown = []

    class Count(View):
        def __init__(self, name, only_at_end):
            self.name, self.only_at_end = name, only_at_end

        def show(self, evidence, board):
            shown.append((self.name, board.step))

    for epochs, expected in (
        (3, [("always", 7), ("always", 11), ("end", 11)]),
        (4, [("always", 7), ("always", 15), ("end", 15)]),
    ):
        shown.clear()
        views = [Count("always", False), Count("end", True)]
        fit(MultiHeadVGG((5, 5), **SMALL), TensorBoardLogger(tmp_path), epochs, inspection=Inspection(2, 10, views))
        assert shown == expected


def test_the_images_are_always_the_same_validation_images():
    module = data()
    one, other, third = (module.sample("val", 20, seed) for seed in (0, 0, 1))
    assert torch.equal(one.index, other.index) and not torch.equal(one.index, third.index)
    assert set(one.index.tolist()) <= set(module._splits["val"].subset.tolist())
    assert len(module.sample("val", 10_000, 0).index) == module.split_size("val")


class Writer:
    """A board that keeps what it is given."""

    has_pictures = True

    def __init__(self):
        self.images = {}

    def image(self, name, image):
        self.images[name] = image


def test_a_grid_has_the_images_in_the_row_of_their_label(tmp_path):
    """Single-coloured images, so that what is pasted where can be read off."""
    board, kept = Writer(), []

    class Keep(View):
        def show(self, evidence, _):
            kept.append(evidence)

    rng = np.random.default_rng(0)
    made = {}
    for split, count in (("train", 120), ("test", 12)):
        sub = np.arange(count) % 6
        colour = np.stack([40 * sub, np.full(count, 10), rng.integers(256, size=count)], 1).astype(np.uint8)
        made |= {f"{split}_images": np.broadcast_to(colour[:, None, None], (count, 32, 32, 3)).copy(),
                 f"{split}_primary": sub // 3, f"{split}_auxiliary": sub}  # fmt: skip
    np.savez(tmp_path / "images.npz", **made)
    source = NpzDataModule(tmp_path, batch_size=20, val_split=0.2)
    module = MultiHeadVGG(source.hierarchy, labeler=HumanLabels(), **SMALL)
    fit(module, TensorBoardLogger(tmp_path), 1, inspection=Inspection(1, 100, [Keep()]), source=source)
    LabelGrids(columns=2, side=4).show(kept[0], board)  # all labels are decided: no row for none
    assert set(board.images) == {"label_grid/0", "label_grid/1"}
    for y, picture in board.images.items():
        width = picture.shape[1]
        for row in range(3):
            tile = picture[row * 6 + 1, width - 12 + 1]  # the first image of the row
            assert tile[0] == 40 * (3 * int(y[-1]) + row) and tile[1] == 10


def test_a_plot_becomes_a_picture(tmp_path):
    logger = TensorBoardLogger(tmp_path, name=None, version="")
    shares = np.array([[1.0, 0.0, np.nan], [0.25, 0.25, 0.5]])
    Board([logger], 3).figure("plot", heatmap(shares, "title", ("rows", ["a", "b"]), ("columns", list("xyz"))))
    logger.experiment.flush()
    (event,) = events(tmp_path).Images("plot")
    assert event.step == 3
    picture = np.asarray(Image.open(io.BytesIO(event.encoded_image_string)))
    colours = {tuple(pixel) for pixel in picture.reshape(-1, 3)}
    assert (68, 1, 84) in colours and (253, 231, 36) in colours  # viridis at 0 and at 1


@pytest.mark.parametrize(
    ("make", "parts"),
    [
        (lambda: Inspection(every_n_epochs=-1), ("every_n_epochs", "-1")),
        (lambda: Inspection(num_images=0), ("num_images", "0")),
        (lambda: LabelGrids(columns=0), ("columns", "0")),
        (lambda: TaskGradients(num_images=0), ("num_images", "0")),
        (lambda: FeatureProjector(side=0), ("side", "0")),
    ],
)
def test_numbers_out_of_range_are_refused(make, parts):
    with pytest.raises(InputError) as error:
        make()
    assert all(part in str(error.value) for part in parts)


def test_another_module_is_refused(tmp_path):
    class Other(L.LightningModule):
        def training_step(self, batch, batch_idx): ...

        def configure_optimizers(self): ...

    with pytest.raises(InputError, match=r"Inspection looks at an AuxiliaryClassifier\. Found as module Other"):
        fit(Other(), TensorBoardLogger(tmp_path))


def test_the_projector_may_be_filled_every_time(tmp_path):
    inspection = Inspection(1, 10, [FeatureProjector(every_time=True)])
    fit(MultiHeadVGG((5, 5), **SMALL), TensorBoardLogger(tmp_path, name=None, version=""), 2, inspection=inspection)
    assert len(list(Path(tmp_path).glob("*/features"))) == 2


def test_an_agent_that_names_classes_outside_of_the_block_says_nothing_about_half_of_the_digits(tmp_path):
    """The paper's actions: of two classes' ten labels five lie in an image's block."""
    kept, board = [], Writer()

    class Keep(View):
        def show(self, evidence, _):
            kept.append(evidence)
            LabelGrids().show(evidence, board)

    module = MultiHeadVGG((5, 5), labeler=AgentLabels(untrained=True), **SMALL)
    logger = TensorBoardLogger(tmp_path, name=None, version="")
    fit(module, logger, 1, inspection=Inspection(1, 200, [Keep(), LabelUsage()]))
    trained = kept[0].trained
    named = module.labelled_task.labeler.network.act(kept[0].batch.image, kept[0].batch.primary)[:, 0]
    outside = module.hierarchy.parents[named] != kept[0].batch.primary
    label = decided_label(kept[0].target.probabilities)
    assert outside.any() and not outside.all()
    assert torch.equal(label == -1, outside) and torch.equal(label[~outside], named[~outside])
    found = events(tmp_path)
    decided = found.Scalars("labels/decided")[-1].value
    assert decided == pytest.approx(float((trained.label >= 0).float().mean())) and 0 < decided < 1
    rows = {name: len(picture) // 34 for name, picture in board.images.items()}
    undecided = {y: bool(outside[kept[0].batch.primary == y].any()) for y in (0, 1)}
    assert rows == {"label_grid/even": 5 + undecided[0], "label_grid/odd": 5 + undecided[1]}


def test_uniform_labels_decide_nothing_and_have_no_agreement(tmp_path):
    module = MultiHeadVGG((5, 5), labeler=UniformLabels(), **SMALL)
    fit(module, TensorBoardLogger(tmp_path, name=None, version=""), 1)
    found = events(tmp_path)
    assert found.Scalars("labels/decided")[-1].value == 0
    assert found.Scalars("labels/confidence")[-1].value == pytest.approx(0.2)
    assert "labels/human_nmi" not in found.Tags()["scalars"]


def test_a_run_that_diverges_is_inspected_all_the_same(tmp_path):
    class Diverged(UniformLabels):
        factor = 1.0  # the first labels are looked at

        def forward(self, batch, features):
            target = super().forward(batch, features)
            factor, self.factor = self.factor, float("nan")
            return target._replace(weight=target.weight * factor)

    module = MultiHeadVGG((5, 5), labeler=Diverged(), **SMALL)
    fit(module, TensorBoardLogger(tmp_path, name=None, version=""), 1)
    assert "confusion/primary" in events(tmp_path).Tags()["images"]


def test_a_view_that_fails_ends_in_a_warning(tmp_path):
    class Broken(View):
        def show(self, evidence, board):
            raise KeyError("oops")

    with pytest.warns(UserWarning, match="Broken could not be shown: KeyError: 'oops'"):
        fit(MultiHeadVGG((5, 5), **SMALL), TensorBoardLogger(tmp_path), 1, inspection=Inspection(1, 10, [Broken()]))


def test_large_images_have_small_pictures_in_the_projector(tmp_path):
    class Boards(Writer):
        def embedding(self, name, vectors, metadata, header, images):
            self.images[name] = images

    board, kept = Boards(), []

    class Keep(View):
        def show(self, evidence, _):
            kept.append(evidence)

    fit(MultiHeadVGG((5, 5), **SMALL), TensorBoardLogger(tmp_path), 1, inspection=Inspection(1, 10, [Keep()]))
    large = kept[0]._replace(image=torch.randint(256, (10, 3, 200, 150), dtype=torch.uint8))
    FeatureProjector().show(large, board)
    assert board.images["features"].shape == (10, 3, 32, 32) and board.images["features"].min() >= 0
