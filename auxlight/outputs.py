"""Files that a command writes at its end."""

from pathlib import Path

from auxlight.errors import InputError


def writable(path: Path) -> Path:
    """The path of `output`, tried before hours are spent; its folder is made.

    Raises:
        InputError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a"):
            return path
    except OSError as error:
        raise InputError(f"`output` must be a file that can be written. Found {path}: {error.strerror}.") from error
