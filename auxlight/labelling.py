"""The labels of a run, for use elsewhere."""

from collections.abc import Iterator
from typing import Literal, cast

import numpy as np
import torch
from lightning.fabric.utilities import move_data_to_device
from torch import Tensor
from tqdm import tqdm

from auxlight.batch import Batch
from auxlight.datamodules.base import ImageDataModule, Split
from auxlight.datamodules.sampling import BatchSampler
from auxlight.errors import InputError
from auxlight.functional import decided_label
from auxlight.modules.aside import aside
from auxlight.modules.classifier import AuxiliaryClassifier
from auxlight.networks.buffers import evaluation_mode
from auxlight.tasks import LabelledTask

SPLITS: tuple[Split, ...] = ("train", "meta", "val", "test")
View = Literal["trained", "plain"]


def labelled_task_of(module: AuxiliaryClassifier) -> LabelledTask:
    """The first task with labels.

    Raises:
        InputError: there is none.
    """
    if module.labelled_task is None:
        raise InputError("`model` must have a labeler for there to be labels. Found the single task.")
    return module.labelled_task


def label_images(module: AuxiliaryClassifier, data: ImageDataModule, epoch: int | None = None) -> dict[str, np.ndarray]:
    """What the module's labeler says of every image of the data module's splits whose primary class is known.

    Labels are those of the networks as they are, in evaluation mode. A labeler that does not change during an epoch
    and has eyes of its own or a snapshot's (an agent; fixed random, uniform and human labels) gave exactly these in
    that epoch; one that learns from batch to batch (a label network, an online agent), looks at the main network's
    features or draws anew each time (`RandomLabels(fixed=False)`) has moved on since. Of several tasks with labels
    the first one's.

    Args:
        module: with a labeler; its device is used.
        data: whose images are to be labelled.
        epoch: label the training images as this epoch augmented them (on one device, with the run's seed and batch
            size), but for those that its last, incomplete batch left out; None: as they are.

    Returns:
        Arrays in the order of splits and positions. split (N,) str: train, meta, val or test; index (N,) int64:
        position in the official training or test set; primary (N,) int64; label (N,) int64: the most probable
        auxiliary class, −1 where none is (an agent named a class outside of the block, or labels are uniform); weight
        (N,) float32; probabilities (N, K) float32; human (N,) int64, where there are human sub-labels; path (N,) str,
        below `root`, where the images come from files.

    Raises:
        InputError: a module without a labeler.
    """
    task = labelled_task_of(module)
    data.setup()
    tables: list[dict[str, np.ndarray]] = []
    for split in SPLITS:
        if not data.split_size(split):
            continue
        rows: dict[str, list[Tensor]] = {}
        with aside(module, 0), evaluation_mode(module), torch.no_grad():
            for batch in _batches(module, data, split, epoch if split == "train" else None):
                if not (batch.primary >= 0).any():
                    continue
                batch = batch.select(batch.primary >= 0)
                target = task.labeler(batch, module.features(batch.image))
                found = {"index": batch.index, "primary": batch.primary, "label": decided_label(target.probabilities)}
                found |= {"weight": target.weight.float(), "probabilities": target.probabilities.float()}
                if batch.auxiliary is not None:
                    found["human"] = batch.auxiliary
                for name, column in found.items():
                    rows.setdefault(name, []).append(column.cpu())
        table = {name: torch.cat(parts) for name, parts in rows.items()}
        # An epoch's batches come first, then what they left out: each image once, by position.
        order = torch.from_numpy(np.unique(table["index"].numpy(), return_index=True)[1])
        columns = {name: column[order].numpy() for name, column in table.items()}
        columns["split"] = np.full(len(order), split)
        files = data.file_names(train=split != "test")
        if files is not None:
            columns["path"] = np.array(files)[columns["index"]]
        tables.append(columns)
    return {name: np.concatenate([table[name] for table in tables]) for name in tables[0]}


def _batches(module: AuxiliaryClassifier, data: ImageDataModule, split: Split, epoch: int | None) -> Iterator[Batch]:
    loaders = [data.loader(split)]
    if epoch is not None:
        loaders.insert(0, data.loader(split, train=True))
        cast(BatchSampler, loaders[0].sampler).set_epoch(epoch)
    for loader in loaders:
        for raw in tqdm(loader, f"labels of {split}", leave=False, disable=None):
            batch = data.pipeline(move_data_to_device(raw, module.device))
            yield batch._replace(image=batch.image.to(module.dtype))
