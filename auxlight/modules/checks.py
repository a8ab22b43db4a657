"""What a module cannot be made of, and what a combiner cannot work with: said before the first step."""

from collections.abc import Iterable, Sequence
from typing import Any

import lightning as L
from lightning.pytorch.strategies import Strategy
from torch import Tensor, nn

from auxlight.combiners import Combiner, WeightedSum
from auxlight.datamodules.base import ImageDataModule
from auxlight.distributed import holds_whole_parameters
from auxlight.errors import InputError
from auxlight.hierarchy import LabelHierarchy
from auxlight.labelers.network import LabelNetwork
from auxlight.tasks import AuxiliaryTask, LabelledTask


def check_parts(tasks: Any, combiner: Any) -> None:
    """Refuse what are no tasks and no combiner.

    Raises:
        InputError: tasks that are no list of different auxiliary tasks, or a combiner that is none.
    """
    if not (tasks is None or isinstance(tasks, Sequence)):
        raise InputError(f"`tasks` must be a list of auxiliary tasks. Found a {type(tasks).__name__}.")
    given = list(tasks or [])
    for number, task in enumerate(given):
        if not isinstance(task, AuxiliaryTask):
            raise InputError(
                f"`tasks` must hold auxiliary tasks. Found a {type(task).__name__}: a labeler becomes one as "
                "auxlight.LabelledTask(labeler)."
            )
        if any(task is other for other in given[:number]):
            raise InputError(f"`tasks` must be different objects. Found one {type(task).__name__} twice.")
    if not (combiner is None or isinstance(combiner, Combiner)):
        raise InputError(
            f"`combiner` must be an auxlight.Combiner. Found {type(combiner).__name__}: give an instance, and wrap an "
            "aggregator of TorchJD in auxlight.Aggregation."
        )


def check_data(hierarchy: LabelHierarchy, labelled: bool, data: ImageDataModule | None) -> None:
    """Refuse data of other classes than the module's.

    Args:
        hierarchy: of the module.
        labelled: whether it has an auxiliary head, which human sub-labels are compared with.
        data: that it trains on.

    Raises:
        InputError: other primary classes, or other blocks than those of the human sub-labels.
    """
    if data is None or (data.hierarchy.num_primary == hierarchy.num_primary and not (labelled and data.has_sub_labels)):
        return
    if data.hierarchy != hierarchy:
        raise InputError(
            f"`hierarchy` of the module must be that of the data, {list(data.hierarchy.psi)} auxiliary classes per "
            f"primary class. Found {list(hierarchy.psi)}: give it `data.hierarchy`."
        )


def classes_of(hierarchy: LabelHierarchy, data: ImageDataModule | None) -> dict[str, Any]:
    """What a checkpoint says of the classes that it was trained on."""
    return {"psi": list(hierarchy.psi), "names": None if data is None else list(map(str, data.class_names))}


def check_classes(found: dict[str, Any] | None, hierarchy: LabelHierarchy, data: ImageDataModule | None) -> None:
    """Refuse a checkpoint of other classes, whose network says something else although it may fit.

    Args:
        found: what `classes_of` said of it.
        hierarchy: of the module.
        data: that it goes on with, if it is known.

    Raises:
        InputError: another hierarchy, or other names.
    """
    if found is None:
        return
    here = classes_of(hierarchy, data)
    if any(found[key] != value for key, value in here.items() if None not in (value, found[key])):
        raise InputError(f"`ckpt_path` must be of the data's classes, {_told(here)}. Found {_told(found)}.")


def _told(classes: dict[str, Any]) -> str:
    names, psi = classes["names"] or [], classes["psi"]
    shown = f" ({', '.join(names[:4])}{' …' if len(names) > 4 else ''})" if names else ""
    return f"{len(psi)}{shown} with psi={psi[0] if len(set(psi)) == 1 else psi}"


def check_labelers(tasks: Iterable[nn.Module], trained: bool) -> None:
    """Refuse label networks that nothing trains.

    Args:
        tasks: of a module.
        trained: whether the module trains its label network.

    Raises:
        InputError: there is one, not meant as a control.
    """
    for task in tasks:
        labeler = task.labeler if isinstance(task, LabelledTask) else None
        if isinstance(labeler, LabelNetwork) and not trained and not labeler.untrained:
            raise InputError(
                f"`labeler` {type(labeler).__name__} needs a module that trains it: auxlight.MAXLModule or "
                "auxlight.AuxiLearnModule. Found another, in which it would stay as it is: choose one of these, or set "
                "`untrained: true` for the control."
            )


def check_losses(found: object, name: str) -> None:
    """Refuse what is no loss and weight for each image.

    Raises:
        InputError: not two tensors (n,).
    """
    parts = found if isinstance(found, tuple | list) else ()
    shapes = [tuple(part.shape) if isinstance(part, Tensor) else None for part in parts]
    if len(shapes) != 2 or shapes[0] is None or len(shapes[0]) != 1 or shapes[1] != shapes[0]:
        what = f"a {type(found).__name__}{f' of shapes {shapes}' if shapes else ''}"
        raise InputError(f"`forward` of {name} must return losses (n,) and weights (n,) of n images. Found {what}.")


def check_primary(losses: Tensor, size: int) -> None:
    """Refuse what is no primary loss for each of so many images.

    Raises:
        InputError: another shape.
    """
    if losses.shape != (size,):
        raise InputError(
            "`primary_losses` must return a loss for each image, of shape (B,): no mean. "
            f"Found shape {tuple(losses.shape)} for {size} images."
        )


def check_scalar(loss: Tensor) -> None:
    """Refuse what is not the one number to be minimised.

    Raises:
        InputError: another shape.
    """
    if loss.ndim:
        raise InputError(f"`combiner` must return one number. Found a tensor of shape {tuple(loss.shape)}.")


def check_combiner(combiner: Combiner, trainer: L.Trainer, data: ImageDataModule | None) -> None:
    """Refuse trainers and data that lack what the combiner asks for.

    Raises:
        InputError: no auxlight data module for a rule that draws further batches, no held-out images, loss scaling or
            sharded parameters for a rule that takes gradients itself.
    """
    name = type(combiner).__name__
    if (combiner.judges_by or combiner.trains_aside) and data is None:
        raise InputError(
            f"`combiner` {name} draws images beside the training loop and needs an auxlight data module. Found none: "
            "subclass ImageDataModule."
        )
    if combiner.judges_by == "meta" and data is not None and not data.meta_split:
        raise InputError(
            f"`combiner` {name} judges the tasks on held-out training images. Found meta_split=0: set "
            "`data.meta_split` to their share, such as 0.05, or `held_out: false` of the combiner."
        )
    if combiner.by_image and data is not None and data.num_labelled is not None:
        raise InputError(
            f"`combiner` {name} needs a loss of each task for every image. Found num_labelled={data.num_labelled}: "
            "set `per_sample: false` of the combiner, or choose another."
        )
    if trainer.precision in ("bf16-true", "16-true") and type(combiner) is not WeightedSum:
        raise InputError(
            f"`combiner` {name} needs full precision: in half of it small steps of weights vanish. "
            f"Found precision={trainer.precision}: use bf16-mixed or 32."
        )
    if not combiner.computes_gradients:
        return
    if str(trainer.precision).startswith("16"):
        raise InputError(
            f"`combiner` {name} takes gradients that no loss scaling reaches. Found precision={trainer.precision}: "
            "use bf16-mixed or 32."
        )
    check_whole_parameters(f"`combiner` {name}", trainer.strategy)


def check_whole_parameters(name: str, strategy: Strategy) -> None:
    """Refuse sharded parameters.

    Raises:
        InputError: there are some.
    """
    if not holds_whole_parameters(strategy):
        raise InputError(
            f"{name} needs whole parameters on every device. Found {type(strategy).__name__}: set `trainer.strategy` "
            "to auto or ddp."
        )
