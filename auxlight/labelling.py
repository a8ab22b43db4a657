"""The labels of a run, for use elsewhere."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, cast

import lightning as L
import numpy as np
import torch
from lightning.fabric.utilities import move_data_to_device
from torch import Tensor
from tqdm import tqdm

from auxlight.batch import Batch
from auxlight.checkpoints import check_file, last_epoch, load_network
from auxlight.datamodules.base import ImageDataModule, Split
from auxlight.datamodules.sampling import BatchSampler
from auxlight.errors import InputError
from auxlight.functional import decided_label
from auxlight.modules.aside import aside
from auxlight.modules.classifier import AuxiliaryClassifier
from auxlight.networks.buffers import evaluation_mode
from auxlight.outputs import writable
from auxlight.run_config import differences

SPLITS: tuple[Split, ...] = ("train", "meta", "val", "test")
View = Literal["trained", "plain"]


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
    task = module.labelled_task
    if task is None:
        raise InputError("`model` must have a labeler for there to be labels. Found the single task.")
    data.setup()
    tables: list[dict[str, np.ndarray]] = []
    for split in SPLITS:
        if not data.split_size(split):
            continue
        rows: dict[str, list[Tensor]] = {}
        with aside(module, 0), evaluation_mode(module), torch.no_grad():
            for batch in _batches(module, data, split, epoch if split == "train" else None):
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
            yield data.pipeline(move_data_to_device(raw, module.device))


class AuxlightTrainer(L.Trainer):
    """Lightning's trainer with one more thing that it can do: `label`."""

    def label(
        self,
        model: AuxiliaryClassifier,
        datamodule: ImageDataModule,
        ckpt_path: str | None = None,
        output: str = "labels.npz",
        view: View = "trained",
        weights_only: bool | None = None,
    ) -> dict[str, Any]:
        """Write the label and the weight that a run's labeler gives each image of the data set.

        Args:
            model: with a labeler.
            datamodule: whose images are to be labelled.
            ckpt_path: checkpoint of the run.
            output: .npz file, with the arrays that `auxlight.labelling.label_images` returns, class_names (C,) and
                psi (C,).
            view: "trained": training images as the checkpoint's epoch augmented them, so that their labels are those
                that it trained with; "plain": as they are.
            weights_only: not read; a fit's config has it.

        Raises:
            InputError: no checkpoint, or one that does not fit.
        """
        if not ckpt_path:
            raise InputError("`ckpt_path` must be the checkpoint of a run. Found none.")
        check_file(ckpt_path)
        if not Path(ckpt_path).is_file():
            raise InputError(f"`ckpt_path` of `label` must be a file. Found {ckpt_path}.")
        if view not in ("trained", "plain"):
            raise InputError(f"`view` must be 'trained' or 'plain'. Found view={view!r}.")
        path = Path(output)
        if path.suffix != ".npz":
            raise InputError(f"`output` must be a .npz file. Found output={output!r}.")
        writable(path)
        load_network(model, ckpt_path)
        for difference in differences(ckpt_path, datamodule) if view == "trained" else ():
            print(f"Note: {difference}: training images get other crops than in the run. `--view plain` has none.")
        model.to(self.strategy.root_device)
        datamodule.prepare_data()
        labels = label_images(model, datamodule, last_epoch(ckpt_path) if view == "trained" else None)
        names = {"class_names": np.array(datamodule.class_names), "psi": np.array(datamodule.hierarchy.psi)}
        np.savez(path, **cast(dict[str, Any], labels | names))
        left_out = sum(map(datamodule.split_size, SPLITS)) - len(labels["index"])
        print(f"Labels of {len(labels['index'])} images: {path}")
        if left_out:
            print(f"Left out: {left_out} images whose primary class is hidden.")
        return labels
