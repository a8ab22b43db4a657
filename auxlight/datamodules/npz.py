"""The user's own arrays."""

from collections.abc import Sequence
from pathlib import Path
from typing import Unpack

from torch import Tensor
from torch.nn import functional as F

from auxlight.datamodules.base import ImageDataModule, ImageOptions
from auxlight.datamodules.images import (
    ImageSet,
    check_range,
    npz_keys,
    read_npz,
    to_image_tensor,
    to_label_tensor,
)
from auxlight.errors import InputError
from auxlight.hierarchy import LabelHierarchy


class NpzDataModule(ImageDataModule):
    """Images and labels from `root/{name}.npz`.

    Arrays: train_images and test_images, uint8, (N, H, W, 3), (N, H, W, 1) or (N, H, W); train_primary and
    test_primary, (N,) integers from 0; optionally train_auxiliary and test_auxiliary, (N,) integers from 0: human
    sub-labels, each inside one primary class, in any order. See `ImageDataModule` for the other arguments.

    Args:
        name: of the file, without ".npz".
        image_size: enlarge or shrink the images to this many pixels a side (bilinear); as they are by default.
        psi: auxiliary classes per primary class, one number or one per class, where there are no human sub-labels
            (default 5).

    Raises:
        InputError: a missing or damaged file or array, or sub-labels that belong to two primary classes.
    """

    def __init__(
        self,
        root: str | Path = "data",
        *,
        name: str = "images",
        image_size: int | None = None,
        psi: int | Sequence[int] | None = None,
        flip: bool = True,
        mean: Sequence[float] = (0.5, 0.5, 0.5),
        std: Sequence[float] = (0.25, 0.25, 0.25),
        **options: Unpack[ImageOptions],
    ) -> None:
        self.path = Path(root) / f"{name}.npz"
        self.image_size = image_size
        if not self.path.is_file():
            raise InputError(
                f"`root` and `name` must lead to a .npz file: put {self.path} there "
                "(arrays train_images, train_primary, test_images, test_primary). Found none."
            )
        if image_size is not None and image_size < 1:
            raise InputError(f"`image_size` must be positive. Found image_size={image_size}.")
        hierarchy, self.block_order = _read_hierarchy(self.path, psi)
        super().__init__(
            hierarchy,
            root=root,
            flip=flip,
            mean=mean,
            std=std,
            **options,
        )

    def load_split(self, train: bool) -> ImageSet:
        """Training or test arrays."""
        split = "train" if train else "test"
        keys = ("images", "primary") if self.block_order is None else ("images", "primary", "auxiliary")
        arrays = read_npz(self.path, tuple(f"{split}_{key}" for key in keys))
        image = to_image_tensor(arrays[f"{split}_images"], f"{split}_images")
        if self.image_size is not None:
            size = (self.image_size, self.image_size)
            image = F.interpolate(image, size=size, mode="bilinear", antialias=True)
        primary = to_label_tensor(arrays[f"{split}_primary"], f"{split}_primary")
        if self.block_order is None:
            return ImageSet(image, primary)
        auxiliary = to_label_tensor(arrays[f"{split}_auxiliary"], f"{split}_auxiliary")
        check_range(auxiliary, len(self.block_order), f"{split}_auxiliary")
        return ImageSet(image, primary, self.block_order[auxiliary])


def _read_hierarchy(path: Path, psi: int | Sequence[int] | None) -> tuple[LabelHierarchy, Tensor | None]:
    """The hierarchy of the training labels, and the auxiliary class of each sub-label (None without sub-labels)."""
    labelled = "train_auxiliary" in npz_keys(path)
    keys = ("train_primary", "train_auxiliary") if labelled else ("train_primary",)
    arrays = read_npz(path, keys)
    primary = to_label_tensor(arrays["train_primary"], "train_primary")
    if not len(primary):
        raise InputError(f"{path} must hold training images. Found `train_primary` empty.")
    check_range(primary, None, "train_primary")
    num_primary = len(primary.unique())  # type: ignore[no-untyped-call]
    if int(primary.max()) >= num_primary:
        raise InputError(
            f"`train_primary` must use every primary class from 0 up. Found none of some below {int(primary.max())}."
        )
    if not labelled:
        return LabelHierarchy.build(num_primary, 5 if psi is None else psi), None
    auxiliary = to_label_tensor(arrays["train_auxiliary"], "train_auxiliary")
    check_range(auxiliary, None, "train_auxiliary")
    if len(auxiliary) != len(primary):
        raise InputError(
            f"`train_auxiliary` must hold one label per image. Found {len(auxiliary)} for {len(primary)} images."
        )
    pairs = sorted(set(zip(auxiliary.tolist(), primary.tolist(), strict=True)))
    if [sub_label for sub_label, _ in pairs] != list(range(len(pairs))):
        raise InputError(
            "`train_auxiliary` must use every sub-label from 0 up, each inside one primary class. "
            f"Found pairs (sub-label, primary class) {', '.join(map(str, pairs[:9]))}{' …' * (len(pairs) > 9)} "
            f"with a largest sub-label of {pairs[-1][0]}."
        )
    hierarchy, block_order = LabelHierarchy.from_parents([parent for _, parent in pairs])
    if psi is not None and LabelHierarchy.build(num_primary, psi) != hierarchy:
        raise InputError(f"`psi` must fit the sub-labels of the file ({list(hierarchy.psi)}). Found psi={psi}.")
    return hierarchy, block_order
