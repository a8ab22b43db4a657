from functools import partial

import lightning as L
import numpy as np
import pytest
import torch
from scipy.cluster.vq import kmeans2
from torch import nn

from auxlight import (
    AuxiliaryClassifier,
    Batch,
    ClusterLabels,
    DigitsDataModule,
    InputError,
    LabelHierarchy,
    MultiHeadVGG,
)
from auxlight.labelling import label_images
from tests.devices import on_two_devices
from tests.quiet import TRAINER

PSI = (2, 3)


class Flat(nn.Module):
    feature_dim = 2

    def forward(self, image):
        return image.flatten(1)


def bound(**arguments) -> ClusterLabels:
    labeler = ClusterLabels(**{"start_epoch": 0, "seed": 0, **arguments})
    labeler.bind(LabelHierarchy(PSI), Flat(), 2)
    return labeler


def batch_of(points: torch.Tensor, primary: torch.Tensor) -> Batch:
    return Batch(points.view(-1, 1, 1, 2), primary, None, torch.arange(len(points)))


def blobs(per_blob: int = 30) -> tuple[Batch, torch.Tensor]:
    """Five well separated clouds; which one a point belongs to."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0], [10.0, 10.0], [20.0, 20.0]])
    blob = torch.arange(5).repeat_interleave(per_blob)[torch.randperm(5 * per_blob, generator=generator)]
    points = centres[blob] + torch.randn(len(blob), 2, generator=generator)
    return batch_of(points, (blob >= 2).long()), blob


def test_finds_planted_clusters():
    labeler, (batch, blob) = bound(), blobs()
    labeler.before_step(0, 1, Flat(), lambda: [batch.select(torch.arange(70)), batch.select(torch.arange(70, 150))])
    target = labeler(batch, torch.zeros(150, 2))
    label = target.probabilities.argmax(1)
    assert torch.equal(target.weight, torch.ones(150))
    pairs = set(zip(label.tolist(), blob.tolist(), strict=True))
    assert len(pairs) == 5  # one label for each cloud
    assert {k for k, b in pairs if b < 2} == {0, 1} and {k for k, b in pairs if b >= 2} == {2, 3, 4}


def test_centres_are_those_of_another_k_means():
    labeler, (batch, _) = bound(), blobs()
    labeler.before_step(0, None, Flat(), lambda: [batch])
    for y, block in ((0, [0, 1]), (1, [2, 3, 4])):
        own = batch.image.flatten(1)[batch.primary == y].double().numpy()
        expected, _ = kmeans2(own, len(block), minit="++", rng=np.random.default_rng(0))
        found = labeler.centres[block].double().numpy()
        assert found[np.lexsort(found.T)] == pytest.approx(expected[np.lexsort(expected.T)], abs=1e-4)


def test_before_the_start_images_weigh_nothing():
    labeler, (batch, _) = bound(start_epoch=2), blobs()
    for epoch, weight in enumerate([0, 0, 1, 1]):
        labeler.before_step(epoch, 4, Flat(), lambda: [batch])
        assert set(labeler(batch, torch.zeros(150, 2)).weight.tolist()) == {weight}


@pytest.mark.parametrize(("every", "expected"), [(None, [1]), (2, [1, 3, 5]), (1, [1, 2, 3, 4, 5])])
def test_epochs_of_clustering(every, expected):
    labeler, (batch, _) = bound(start_epoch=1, every_n_epochs=every), blobs()
    calls = []

    def images():
        calls.append(epoch)
        return [batch]

    for epoch in range(6):
        for _ in range(3):  # steps
            labeler.before_step(epoch, 6, Flat(), images)
    assert calls == expected


def test_few_images_of_a_class():
    labeler = bound()
    batch = batch_of(torch.tensor([[0.0, 1.0], [5.0, 5.0], [5.0, 5.0]]), torch.tensor([0, 1, 1]))
    labeler.before_step(0, 1, Flat(), lambda: [batch])
    assert labeler(batch, torch.zeros(3, 2)).probabilities.argmax(1).tolist() == [0, 2, 2]


@pytest.mark.parametrize(
    ("arguments", "found"), [({"start_epoch": -1}, "start_epoch=-1"), ({"every_n_epochs": 0}, "every_n_epochs=0")]
)
def test_wrong_epochs(arguments, found):
    with pytest.raises(InputError, match=f"must be at least.*{found}"):
        ClusterLabels(**arguments)


def fit(path, epochs: int, labeler: ClusterLabels, **arguments) -> tuple[MultiHeadVGG, L.Trainer]:
    torch.manual_seed(0)
    module = MultiHeadVGG((5, 5), depth=11, width=0.0625, labeler=labeler)
    trainer = L.Trainer(max_epochs=epochs, limit_val_batches=0, default_root_dir=path, **TRAINER)
    trainer.fit(module, DigitsDataModule(num_train=200), **arguments)
    return module, trainer


def test_a_run_that_ends_before_its_labels_begin(tmp_path):
    with pytest.warns(UserWarning, match="no image will have a label. Lower `start_epoch`") as found:
        fit(tmp_path, 2, ClusterLabels(start_epoch=2))
    assert len([w for w in found if "start_epoch" in str(w.message)]) == 1


def test_in_a_fit(tmp_path):
    """Labels of the copied trunk on plain images, which the main trunk has left since; a resumed run is the same."""
    whole, _ = fit(tmp_path, 3, ClusterLabels(start_epoch=1))
    labeler = whole.labelled_task.labeler
    assert labeler.clustered == 1
    assert not any(parameter.requires_grad for parameter in labeler.eyes.parameters())
    moved = zip(labeler.eyes.state_dict().values(), whole.trunk.state_dict().values(), strict=True)
    assert any(not torch.equal(a, b) for a, b in moved)

    _, trainer = fit(tmp_path, 2, ClusterLabels(start_epoch=1))
    trainer.save_checkpoint(tmp_path / "part.ckpt")
    resumed, _ = fit(tmp_path, 3, ClusterLabels(start_epoch=1), ckpt_path=tmp_path / "part.ckpt")
    for name, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name


def fit_on_two():
    module = MultiHeadVGG((5, 5), depth=11, width=0.0625, labeler=ClusterLabels(start_epoch=1))
    L.seed_everything(0, verbose=False)
    data = DigitsDataModule(num_train=200, batch_size=25)
    L.Trainer(max_epochs=2, limit_val_batches=0, devices=2, strategy="ddp", **TRAINER).fit(module, data)
    labeler = module.labelled_task.labeler
    return {"centres": labeler.centres, "clustered": labeler.clustered, **labeler.eyes.state_dict()}


def test_two_devices_have_the_same_clusters(tmp_path):
    """Though their batch norms have seen different images, and k-means would number clusters in its own way."""
    one, other = on_two_devices(fit_on_two, tmp_path)
    assert one["clustered"] == 1 and one["centres"].abs().sum() > 0
    assert all(torch.equal(value, other[name]) for name, value in one.items())


def test_another_fit_clusters_anew():
    labeler, (batch, _) = bound(start_epoch=1), blobs()
    moved = batch._replace(image=batch.image + 100)
    for images in (batch, moved):
        labeler.before_fit()
        for epoch in range(3):
            labeler.before_step(epoch, 3, Flat(), lambda images=images: [images])
    assert labeler.centres.min() > 90


def fitted(module, data, epochs, ckpt_path=None, **arguments):
    trainer = L.Trainer(**TRAINER | {"limit_val_batches": 0}, max_epochs=epochs, **arguments)
    trainer.fit(module, data, ckpt_path=ckpt_path)
    return trainer


@pytest.mark.parametrize("start_epoch", [0, 1])
def test_a_fit_that_is_not_resumed_has_clusters_of_its_own(start_epoch):
    """Of one object, and of one that was loaded."""
    data = DigitsDataModule(num_train=100, batch_size=50)
    make = partial(MultiHeadVGG, data.hierarchy, depth=11, width=0.0625)
    first = make(labeler=ClusterLabels(start_epoch=start_epoch))
    fitted(first, data, start_epoch + 1)
    loaded = make(labeler=ClusterLabels(start_epoch=start_epoch))
    loaded.load_state_dict(first.state_dict())
    centres = first.labelled_task.labeler.centres.clone()
    for module in (first, loaded):
        fitted(module, data, start_epoch + 1)
        assert not torch.equal(module.labelled_task.labeler.centres, centres)


def test_a_run_that_is_taken_up_further_back_keeps_its_clusters(tmp_path):
    data = DigitsDataModule(num_train=100, batch_size=50)
    module = MultiHeadVGG(data.hierarchy, depth=11, width=0.0625, labeler=ClusterLabels(start_epoch=1))
    trainer = fitted(module, data, 2)
    trainer.save_checkpoint(tmp_path / "two.ckpt")
    centres = module.labelled_task.labeler.centres.clone()
    fitted(module, data, 5, tmp_path / "two.ckpt")
    fitted(module, data, 4, tmp_path / "two.ckpt")
    assert int(module.labelled_task.labeler.clustered) == 1
    assert torch.equal(module.labelled_task.labeler.centres, centres)


def test_labels_are_of_full_precision_beside_a_mixed_one():
    """As the centres are, which are made outside of a step."""
    torch.manual_seed(0)
    trunk = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
    labeler = ClusterLabels(start_epoch=0)
    labeler.bind(LabelHierarchy((5, 5)), trunk, 2)
    image = torch.randn(400, 3, 2, 2)
    batch = Batch(image, torch.arange(400) % 2, None, torch.arange(400))
    labeler.before_step(0, 1, trunk, lambda: [batch])
    with torch.autocast("cpu", torch.bfloat16):
        mixed = labeler(batch, image)
    assert torch.equal(mixed.probabilities, labeler(batch, image).probabilities)


@pytest.mark.parametrize("labelled", [2, 20])
def test_batches_without_a_known_class_are_left_out(labelled):
    """Trunks may not take none."""

    class Reshaping(nn.Module):
        feature_dim = 3072

        def forward(self, image):
            return image.reshape(image.size(0), -1)

    data = DigitsDataModule(num_train=100, num_labelled=labelled * 5, batch_size=10)
    module = AuxiliaryClassifier(data.hierarchy, Reshaping(), labeler=ClusterLabels(start_epoch=0))
    fitted(module, data, 1)
    assert len(label_images(module, data)["index"]) > 300


def test_features_that_are_not_finite_get_one_line():
    batch = batch_of(torch.tensor([[0.0, torch.nan]]), torch.tensor([0]))
    with pytest.raises(InputError, match="the training has diverged"):
        bound().before_step(0, 1, Flat(), lambda: [batch])
