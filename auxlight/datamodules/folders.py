"""Folders of images: what lies where, and the images themselves."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps
from torchvision.datasets.folder import IMG_EXTENSIONS
from tqdm import tqdm

from auxlight.errors import InputError


class Filed(NamedTuple):
    """An image file, and the folders that it lies in; no sub-class where it lies in its class's folder."""

    file: Path
    primary: str
    sub: str | None


def list_images(folder: Path) -> list[Filed]:
    """The images of `folder/<primary>/<sub>/` or `folder/<primary>/`, in alphabetical order.

    Files that are no images by their name are passed over, and so is all that begins with a dot.

    Raises:
        InputError: images outside of a class's folder or deeper than a sub-class's, a class or a sub-class without
            images, or sub-classes in some classes only.
    """
    loose = _images(folder)
    if loose:
        raise InputError(f"Each image must lie in the folder of its class. Found {loose[0]} in none.")
    classes = _folders(folder)
    if not classes:
        raise InputError(f"{folder} must hold a folder for each primary class. Found none.")
    found: list[Filed] = []
    divided: dict[bool, Path] = {}
    for own in classes:
        subs, images = _folders(own), _images(own)
        if subs and images:
            raise InputError(
                f"A class's folder must hold images or sub-class folders. Found both in {own}: {images[0].name} "
                f"beside {subs[0].name}/."
            )
        divided[bool(subs)] = own
        for place in subs or [own]:
            images = _images(place)
            if not images:
                raise InputError(f"Each folder of a class or sub-class must hold images. Found none in {place}.")
            if subs and _folders(place):
                raise InputError(f"Images must lie in <primary>/<sub>/. Found a folder below: {_folders(place)[0]}.")
            found += [Filed(file, own.name, place.name if subs else None) for file in images]
    if len(divided) > 1:
        raise InputError(
            "All classes must have sub-class folders, or none. "
            f"Found some in {divided[True]}, and none in {divided[False]}."
        )
    return found


def find_images(folder: Path) -> list[Path]:
    """The images in a folder and below it, in alphabetical order; what begins with a dot is passed over.

    Raises:
        InputError: no such folder, or no image in it.
    """
    below = (file for file in folder.rglob("*") if file.suffix.lower() in IMG_EXTENSIONS and file.is_file())
    found = sorted(file for file in below if not any(p.startswith(".") for p in file.relative_to(folder).parts))
    if not found:
        raise InputError(f"`predict_root` must be a folder with images in it or below it. Found none in {folder}.")
    return found


def read_images(files: Sequence[Path], size: tuple[int, int] | None) -> np.ndarray:
    """(N, H, W, 3) uint8; grey images become three equal channels, transparency is dropped.

    Args:
        files: to read; photographs are turned as their cameras say.
        size: height and width that the images are scaled to (bilinear); None where all have one size.

    Raises:
        InputError: a file that cannot be read (it is named), or images of several sizes without `size`.
    """

    def read(file: Path) -> np.ndarray:
        try:
            with Image.open(file) as image:
                if image.mode.startswith(("I", "F")):
                    raise InputError(f"Images must have 8 bits per channel. Found {file} with mode {image.mode}.")
                whole = ImageOps.exif_transpose(image).convert("RGB")
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            if isinstance(error, InputError):
                raise
            reason = " ".join(str(error).split()).rstrip(".")
            raise InputError(f"{file} cannot be read as an image: {reason}.") from error
        if size is not None and whole.size != size[::-1]:
            whole = whole.resize(size[::-1], Image.Resampling.BILINEAR)
        return np.asarray(whole)

    first = read(files[0])
    images = np.empty((len(files), *first.shape), dtype=np.uint8)
    with ThreadPoolExecutor() as pool:
        progress = tqdm(pool.map(read, files), "reading images", len(files), leave=False, disable=None)
        for number, pixels in enumerate(progress):
            if pixels.shape != first.shape:
                pool.shutdown(cancel_futures=True)
                sizes = " and ".join(
                    f"{p.shape[1]} × {p.shape[0]} ({f})" for p, f in ((first, files[0]), (pixels, files[number]))
                )
                raise InputError(
                    f"`image_size` must be set where images differ in size. Found {sizes}: set `image_size: 32`, or "
                    "what suits your network, to scale all of them."
                )
            images[number] = pixels
    return images


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _images(folder: Path) -> list[Path]:
    paths = (path for path in folder.iterdir() if path.suffix.lower() in IMG_EXTENSIONS and path.is_file())
    return sorted(path for path in paths if not path.name.startswith("."))
