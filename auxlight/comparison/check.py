"""A misspelt argument is found before the first run, not hours later when its method's turn comes."""

import contextlib
import io
from collections.abc import Sequence

from auxlight.comparison.spec import Run
from auxlight.errors import InputError


def check_arguments(runs: Sequence[Run]) -> None:
    """Read the command line of each method's first run that is not finished, as `auxlight fit` would; nothing is built.

    Args:
        runs: of a comparison.

    Raises:
        InputError: what `auxlight fit` does not accept, and whose it is.
    """
    from auxlight.cli import main  # which imports this package

    first = {(run.data, run.method): run for run in reversed(runs) if not run.result.is_file()}
    for (data, method), run in reversed(first.items()):
        said = io.StringIO()
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
            try:
                main(["fit", *run.words, "--print_config"])
            except SystemExit as stop:
                if stop.code:
                    line = said.getvalue().strip().splitlines()[-1].removeprefix("auxlight: error: ")
                    raise InputError(f"`auxlight fit` does not accept what {data}/{method} gives it. {line}") from None
