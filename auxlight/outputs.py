"""Files that a command writes."""

from pathlib import Path

from auxlight.errors import InputError


def writable(path: Path, name: str = "output") -> Path:
    """The path of an output file, tried before hours are spent; its folder is made.

    Args:
        path: of the file.
        name: of the parameter that it was given by.

    Raises:
        InputError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a"):
            return path
    except OSError as error:
        raise InputError(f"`{name}` must be a file that can be written. Found {path}: {error.strerror}.") from error


def make_folder(path: Path, name: str = "folder") -> None:
    """Make a folder, if there is none.

    Args:
        path: of the folder.
        name: of the parameter that it was given by.

    Raises:
        InputError: it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"`{name}` must be a folder that can be made. Found {path}: {error.strerror}.") from error


def write_whole(path: Path, text: str) -> None:
    """Write a file at once: whoever reads it meanwhile, or after a kill, finds all of it or what was there before."""
    part = path.with_name(f"{path.name}.part")
    part.write_text(text)
    part.replace(path)
