"""A misspelt argument is found before the first run, not hours later when its method's turn comes."""

import contextlib
import io
from collections.abc import Sequence

from auxlight.comparison.spec import Run
from auxlight.errors import InputError


def check_arguments(runs: Sequence[Run]) -> None:
    """Read command lines of runs that are not finished, as `auxlight fit` would; nothing is built.

    Of each method so many that each value of its tuning is in one.

    Args:
        runs: of a comparison.

    Raises:
        InputError: what `auxlight fit` does not accept, and whose it is.
    """
    from auxlight.cli import main  # which imports this package

    seen: set[tuple[str, ...]] = set()
    for run in runs:
        own = (run.data, run.method)
        new = {own, *((*own, key, str(value)) for key, value in run.setting.items())} - seen
        if run.result.is_file() or not new:
            continue
        seen |= new
        said = io.StringIO()
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
            try:
                main(["fit", *run.words, "--print_config"])
            except SystemExit as stop:
                if stop.code:
                    line = said.getvalue().strip().splitlines()[-1].removeprefix("auxlight: error: ")
                    raise InputError(f"`auxlight fit` does not accept what {'/'.join(own)} gives it. {line}") from None
