"""Files that a command writes."""

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


def write_whole(path: Path, text: str) -> None:
    """Write a file at once: whoever reads it meanwhile, or after a kill, finds all of it or what was there before."""
    part = path.with_name(f"{path.name}.part")
    part.write_text(text)
    part.replace(path)
