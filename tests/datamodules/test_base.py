from types import SimpleNamespace

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.strategies import DDPStrategy, FSDPStrategy

from auxlight import Batch, CIFAR10DataModule, CIFAR100SuperclassDataModule, DigitsDataModule, NpzDataModule
from auxlight.datamodules.images import RawBatch


@pytest.fixture(autouse=True)
def no_global_seed(monkeypatch):
    monkeypatch.setenv("PL_GLOBAL_SEED", "0")
    monkeypatch.setenv("PL_SEED_WORKERS", "0")
    state = torch.get_rng_state()
    yield
    torch.set_rng_state(state)


@pytest.fixture
def cifar10(write):
    def build(**options):
        data = CIFAR10DataModule(write("cifar10"), **{"batch_size": 6, "val_split": 0.25} | options)
        data.setup()
        return data

    return build


def indices(loader):
    return [i for batch in loader for i in batch.index.tolist()]


def split(data):
    return [indices(data.loader(name)) for name in ("train", "val")]


def orders(data):
    return [batch.index.tolist() for batch in data.train_dataloader()]


# --- splits


def test_validation_comes_from_training_and_the_test_set_stays_apart(cifar10, arrays):
    data, files = cifar10(), arrays("cifar10")
    train, val = split(data)
    assert sorted(train + val) == list(range(40))
    assert len(val) == 10
    for name, key in (("train", "train"), ("val", "train"), ("test", "test")):
        for batch in data.loader(name):
            np.testing.assert_array_equal(batch.image.permute(0, 2, 3, 1), files[f"{key}_images"][batch.index])
            np.testing.assert_array_equal(batch.primary, files[f"{key}_labels"][batch.index])
    assert indices(data.test_dataloader()) == indices(data.predict_dataloader()) == list(range(12))


def test_few_training_images_are_balanced_and_nested_beside_one_validation_split(cifar10, arrays):
    labels, previous = arrays("cifar10")["train_labels"], set()
    _, held_out = split(cifar10())
    for size in (10, 13, 20, 30):
        train, val = split(cifar10(num_train=size))
        counts = np.bincount(labels[train], minlength=10)
        assert len(train) == size and counts.max() - counts.min() <= 1
        assert previous < set(train) and not set(train) & set(val)
        assert val == held_out
        previous = set(train)


def test_human_sub_labels_are_the_strata(write):
    data = CIFAR100SuperclassDataModule(write("cifar100"), num_train=100, val_split=1 / 3, batch_size=10)
    data.setup()
    for name in ("train", "val"):
        fine = torch.cat([batch.auxiliary for batch in data.loader(name)])
        assert sorted(fine.tolist()) == list(range(100))


def test_setup_reads_the_files_once(cifar10, monkeypatch):
    data = cifar10()

    def refuse(train):
        raise AssertionError

    monkeypatch.setattr(data, "load_split", refuse)
    data.setup("test")
    assert len(data.test_dataloader()) == 2


def test_loaders_set_up_by_themselves(write):
    assert len(CIFAR10DataModule(write("cifar10"), batch_size=6).test_dataloader()) == 2


# --- seeds


def test_the_modules_seed_chooses_the_split(cifar10):
    assert split(cifar10(seed=1)) == split(cifar10(seed=1))
    assert split(cifar10(seed=1)) != split(cifar10(seed=2))
    same_images = [set(split(cifar10(seed=seed, num_train=12))[0]) for seed in (1, 2)]
    assert same_images[0] != same_images[1]


def test_the_global_seed_chooses_the_order_alone(cifar10):
    splits, epochs, seeds = [], [], []
    for seed in (1, 2, 1):
        L.seed_everything(seed, verbose=False)
        data = cifar10()
        splits.append(split(data))
        epochs.append(orders(data))
        seeds.append([batch.seed for batch in data.train_dataloader()])
    assert splits[0] == splits[1] == splits[2]
    assert epochs[0] == epochs[2] and seeds[0] == seeds[2]
    assert epochs[0] != epochs[1] and not set(seeds[0]) & set(seeds[1])


def test_streams_see_other_orders(cifar10):
    data = cifar10()
    main, agent = (indices(data.loader("train", train=True, stream=stream)) for stream in ("main", "agent"))
    assert main == indices(data.train_dataloader())
    assert main != agent and sorted(main) == sorted(agent)


def test_draws_do_not_read_the_global_generator(cifar10):
    torch.manual_seed(0)
    first = orders(cifar10())
    torch.manual_seed(1)
    assert orders(cifar10()) == first


# --- loaders


def test_training_batches_are_complete_and_the_others_hold_the_rest(cifar10):
    data = cifar10(batch_size=7)
    assert data.image_shape == (3, 32, 32)
    sizes = {name: [len(batch.index) for batch in getattr(data, f"{name}_dataloader")()] for name in ("train", "val")}
    assert sizes == {"train": [7, 7, 7, 7], "val": [7, 3]}
    batch = next(iter(data.train_dataloader()))
    assert batch.image.shape == (7, 3, 32, 32) and batch.image.dtype == torch.uint8
    assert batch.primary.shape == batch.index.shape == (7,) and batch.primary.dtype == torch.int64
    assert batch.auxiliary is None and isinstance(batch.seed, int)
    assert next(iter(data.val_dataloader())).seed is None


def test_a_loader_may_have_a_batch_size_of_its_own(cifar10):
    data = cifar10()
    assert [len(batch.index) for batch in data.loader("val", batch_size=4)] == [4, 4, 2]
    assert [len(batch.index) for batch in data.loader("val", batch_size=1000)] == [10]


@pytest.mark.parametrize(
    ("strategy", "devices", "tested"), [(DDPStrategy, 2, 12), (DDPStrategy, 5, 12), (FSDPStrategy, 5, 15)]
)
def test_devices_train_on_disjoint_images_and_evaluate_all(strategy, devices, tested, cifar10):
    """Each test image once, unless sharded parameters want equally many on each device."""
    ranks = []
    for rank in range(devices):
        data = cifar10(batch_size=5)
        data.trainer = SimpleNamespace(world_size=devices, global_rank=rank, strategy=strategy())
        ranks.append((indices(data.train_dataloader()), indices(data.test_dataloader())))
    train, test = ([i for part in parts for i in part] for parts in zip(*ranks, strict=True))
    assert len(train) == len(set(train)) and set(train) <= set(split(cifar10())[0])
    assert set(test) == set(range(12)) and len(test) == tested


class Watcher(L.LightningModule):
    """Notes the images of every training step, and learns nothing."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen, self.kinds = {}, set()

    def training_step(self, batch, batch_idx):
        self.seen.setdefault(self.current_epoch, []).append(batch.index.tolist())
        self.kinds.add(type(batch))
        return self.weight * batch.image.mean()

    def validation_step(self, batch, batch_idx):
        """Lightning misses it otherwise."""

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
def test_lightning_trains_each_epoch_in_an_order_of_its_own(cifar10, tmp_path):
    data, watcher = cifar10(), Watcher()
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    trainer = L.Trainer(default_root_dir=tmp_path, accelerator="cpu", max_epochs=3, limit_val_batches=0, **quiet)
    trainer.fit(watcher, data)
    fresh = cifar10().train_dataloader()
    for epoch in range(3):
        fresh.sampler.set_epoch(epoch)
        assert watcher.seen[epoch] == [draw.index.tolist() for draw in fresh]
    assert watcher.seen[0] != watcher.seen[1] != watcher.seen[2]
    assert watcher.kinds == {Batch}


def test_the_hook_prepares_raw_batches_and_passes_others(cifar10):
    data = cifar10()
    raw = next(iter(data.val_dataloader()))
    assert isinstance(raw, RawBatch)
    batch = data.on_after_batch_transfer(raw, 0)
    assert isinstance(batch, Batch)
    torch.testing.assert_close(batch.image, (raw.image / 255 - 0.5) / 0.2)
    assert data.on_after_batch_transfer(batch, 0) is batch


# --- bad input


@pytest.mark.parametrize("batch_size", [0, -1])
def test_a_batch_size_below_one_is_refused_at_once(batch_size, refused):
    with refused("`batch_size`", "at least 1", str(batch_size)):
        CIFAR10DataModule(batch_size=batch_size)


def test_a_negative_padding_is_refused_at_once(refused):
    with refused("`crop_padding`", "at least 0", "-1"):
        CIFAR10DataModule(crop_padding=-1)


@pytest.mark.parametrize("val_split", [0.0, 1.0, -1.0, float("nan"), 0.001, 0.999])
def test_a_share_that_leaves_a_split_empty_is_refused(val_split, cifar10, refused):
    with refused("`val_split`", str(val_split)):
        cifar10(val_split=val_split)


@pytest.mark.parametrize("num_train", [-1, 0, 9, 31, 41])
def test_a_subset_too_small_or_too_large_is_refused(num_train, cifar10, refused):
    with refused("`num_train`", "10", "30", str(num_train)):
        cifar10(num_train=num_train)


@pytest.mark.parametrize(("options", "limit"), [({"batch_size": 31}, 30), ({"batch_size": 13, "num_train": 12}, 12)])
def test_a_batch_larger_than_the_training_set_is_refused(options, limit, cifar10, refused):
    with refused("`batch_size`", f"{limit} training images", f"batch_size={options['batch_size']}"):
        cifar10(**options)


def test_a_batch_that_fills_the_training_set_is_allowed(cifar10):
    assert len(cifar10(batch_size=30).train_dataloader()) == 1


def test_a_batch_larger_than_the_share_of_a_device_is_refused(cifar10, refused):
    data = cifar10(batch_size=20)
    data.trainer = SimpleNamespace(world_size=2, global_rank=0)
    with refused("`batch_size`", "15"):  # otherwise an epoch has no step
        data.train_dataloader()


def test_a_negative_seed_is_refused(refused):
    with refused("`seed`", "-1"):
        DigitsDataModule(seed=-1).setup()


@pytest.mark.parametrize("module", [CIFAR10DataModule, CIFAR100SuperclassDataModule, DigitsDataModule, NpzDataModule])
def test_hyperparameters_are_plain_values(module, write, tmp_path):
    write("images")
    data = module(tmp_path, batch_size=7, num_train=20)
    assert data.hparams["root"] == str(tmp_path)
    assert data.hparams["batch_size"] == 7 and data.hparams["num_train"] == 20


# --- images on which no network trains


def on_a_device(data, rank=0, devices=1):
    strategy = SimpleNamespace(batch_to_device=lambda raw: data.on_after_batch_transfer(raw, 0))
    plugin = SimpleNamespace(convert_input=lambda batch: batch)
    data.trainer = SimpleNamespace(
        world_size=devices, global_rank=rank, strategy=strategy, precision_plugin=plugin, overfit_batches=0
    )
    return data


def held_out_split(data):
    return [indices(data.loader(name)) for name in ("train", "meta", "val")]


@pytest.mark.parametrize("meta_split", [0.1, 1 / 3, 0.9])
def test_held_out_images_come_from_training_and_leave_validation(cifar10, meta_split):
    train, meta, val = held_out_split(cifar10(meta_split=meta_split, batch_size=1))
    assert len(meta) == round(30 * meta_split)
    assert sorted(train + meta + val) == list(range(40))
    assert val == split(cifar10())[1]


@pytest.mark.parametrize("num_train", [20, 30])
def test_the_number_of_training_images_counts_held_out_ones(cifar10, arrays, num_train):
    labels = arrays("cifar10")["train_labels"]
    train, meta, val = held_out_split(cifar10(meta_split=10 / num_train, num_train=num_train))
    assert len(train) + len(meta) == num_train and len({*train, *meta, *val}) == num_train + 10
    assert sorted(train + meta) == sorted(split(cifar10(num_train=num_train))[0])
    assert sorted(labels[meta].tolist()) == list(range(10))  # one of each class
    assert np.bincount(labels[train]).tolist() == [num_train // 10 - 1] * 10


def test_held_out_images_are_stratified_by_human_sub_labels():
    data = DigitsDataModule(meta_split=0.2)
    data.setup()
    train, meta = (
        np.bincount(np.concatenate([batch.auxiliary for batch in data.loader(name)])) for name in ("train", "meta")
    )
    assert len(meta) == 10
    assert (abs(meta - 0.2 * (train + meta)) < 1).all()


def test_the_modules_seed_chooses_the_held_out_images(cifar10):
    first, again, other = (held_out_split(cifar10(meta_split=1 / 3, seed=seed)) for seed in (1, 1, 2))
    assert first == again and first[1] != other[1]
    whole = cifar10(meta_split=1 / 3)
    L.seed_everything(1, verbose=False)
    assert held_out_split(cifar10(meta_split=1 / 3)) == held_out_split(whole)


def test_none_are_held_out_by_default(cifar10):
    train, val = split(cifar10(meta_split=0))
    assert sorted(train + val) == list(range(40)) and split(cifar10()) == [train, val]


def test_held_out_images_that_there_are_none_of_are_refused(cifar10, refused):
    with refused("`meta_split`"):
        next(on_a_device(cifar10()).training_batches("meta", 0, split="meta"))


def test_batches_beside_the_loop_are_of_the_split_asked_for(cifar10):
    data = on_a_device(cifar10(meta_split=1 / 3, batch_size=5))
    train, meta, _ = held_out_split(data)
    for arguments, images in (({}, train), ({"split": "train"}, train), ({"split": "meta"}, meta)):
        batches = list(data.training_batches("some", 0, **arguments))
        assert [len(batch.index) for batch in batches] == [5] * (len(images) // 5)
        assert sorted(indices(batches)) == sorted(images) and indices(batches) != images  # shuffled
        assert all(isinstance(batch, Batch) and batch.image.dtype == torch.float32 for batch in batches)
    asked = [("a", 0), ("a", 0), ("a", 1), ("b", 0)]
    orders = [indices(data.training_batches(stream, epoch, split="meta")) for stream, epoch in asked]
    assert orders[0] == orders[1] and len({*map(tuple, orders)}) == 3


def test_a_batch_larger_than_the_held_out_split_is_capped(cifar10):
    data = on_a_device(cifar10(meta_split=1 / 3, batch_size=15))
    (batch,) = data.training_batches("some", 0, split="meta")
    assert sorted(batch.index.tolist()) == sorted(indices(data.loader("meta"))) and len(batch.index) == 10
    assert [len(b.index) for b in data.training_batches("some", 0, 4, "meta")] == [4, 4]
    assert [len(b.index) for b in data.training_batches("some", 0, 100, "meta")] == [10]


def test_held_out_images_are_augmented_as_training_images_are(cifar10):
    data = on_a_device(cifar10(meta_split=1 / 3))
    plain = {i: image for b in data.loader("meta") for i, image in zip(b.index.tolist(), b.image, strict=True)}
    (batch,) = data.training_batches("some", 0, 10, "meta")
    as_it_is = torch.stack([plain[i] for i in batch.index.tolist()])
    changed = (batch.image - (as_it_is / 255 - 0.5) / 0.2).flatten(1).abs().amax(1) > 1e-3
    assert changed.sum() >= 8


@pytest.mark.parametrize("meta_split", [-0.1, 1.0, 1.5, float("nan"), float("inf")])
def test_a_held_out_share_out_of_range_is_refused_at_once(meta_split, refused):
    with refused("`meta_split`", "between 0 (none) and 1", f"meta_split={meta_split}"):
        CIFAR10DataModule(meta_split=meta_split)


@pytest.mark.parametrize("meta_split", [0.01, 0.99])
def test_a_held_out_share_that_leaves_nothing_on_a_side_is_refused(meta_split, cifar10, refused):
    with refused("`meta_split`", "at least one image on either side", f"meta_split={meta_split}", "30 images"):
        cifar10(meta_split=meta_split, batch_size=1)


def test_a_batch_larger_than_what_the_held_out_images_leave_is_refused(cifar10, refused):
    with refused("`batch_size`", "20 training images", "batch_size=21"):
        cifar10(meta_split=1 / 3, batch_size=21)


def test_two_devices_hold_out_shares_of_one_split(cifar10):
    shares = []
    for rank in range(2):
        data = on_a_device(cifar10(meta_split=1 / 3, batch_size=5), rank, devices=2)
        shares += indices(data.training_batches("some", 0, split="meta"))
    assert sorted(shares) == sorted(held_out_split(cifar10(meta_split=1 / 3))[1])
