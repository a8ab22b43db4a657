"""The command line's trainer."""

from pathlib import Path
from typing import Any, cast

import lightning as L
import numpy as np

from auxlight.checkpoints import check_file, last_epoch, load_network
from auxlight.datamodules.base import ImageDataModule
from auxlight.errors import DivergedError, InputError
from auxlight.labelling import SPLITS, View, label_images, labelled_task_of
from auxlight.modules.classifier import AuxiliaryClassifier
from auxlight.outputs import writable
from auxlight.run_config import differences


class AuxlightTrainer(L.Trainer):
    """Lightning's trainer; it can `label`, and a training that diverges does not take its checkpoints along.

    Attributes:
        diverged: why the last fit ended early, if it did: its numbers were no longer finite.
    """

    diverged: DivergedError | None = None

    def fit(
        self,
        model: L.LightningModule,
        train_dataloaders: Any = None,
        val_dataloaders: Any = None,
        datamodule: L.LightningDataModule | None = None,
        ckpt_path: str | Path | None = None,
        weights_only: bool | None = None,
    ) -> None:
        """Lightning's; where the training diverges it ends, and what was validated before can be tested.

        Raises:
            DivergedError: on several devices, which need not all see it.
        """
        self.diverged = None
        try:
            super().fit(model, train_dataloaders, val_dataloaders, datamodule, ckpt_path, weights_only)
        except DivergedError as error:
            if self.world_size > 1:
                raise
            self.diverged = error

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
        labelled_task_of(model)
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
