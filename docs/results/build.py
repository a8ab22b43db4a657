"""Makes RESULTS.md, at the top, from the archives of finished runs beside this file: `make results`.

`template.md` is the page. No figure of the studies is written in it by hand (the papers' are). What it holds becomes:

- `{{report STUDY}}`: a comparison's report.
- `{{gap STUDY METHOD CONTROL}}`: a difference with its interval; CONTROL `best` is the one that validated best.
- `{{seeds STUDY METHOD CONTROL}}`: how many seeds would tell such a difference, and such a scatter of it, apart.
- `{{horizon LABELS-LABELS …}}`, `{{duels LABELS-LABELS …}}`, `{{heads LABELS …}}`: rows of `label_horizon.txt` and, the
  last two, `label_duel.txt`.
"""

import json
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from auxlight.comparison.archive import unpack
from auxlight.comparison.cli import read
from auxlight.comparison.report import COLUMNS, best_control, gap_text, write_report
from auxlight.comparison.results import scores, table
from auxlight.comparison.spec import Comparison
from auxlight.comparison.statistics import differences, seeds_needed

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SMALL = ROOT / "configs/compare/small"
TUNED = ("cifar100_3", "cifar100_20", "cifar100_20_paper")  # settings of `methods.yaml`


class Study:
    """A comparison whose runs come from its archive."""

    def __init__(self, name: str, scratch: Path, plots: bool) -> None:
        self.name = name
        self.plots = plots
        files = ("methods", name) if name in TUNED else (name,)
        words = [word for file in files for word in ("--config", str(SMALL / f"{file}.yaml"))]
        self.comparison: Comparison = read([*words, f"--folder={scratch / name}"])[0]
        unpack(self.comparison, HERE / name)
        self.rows = table(self.comparison)

    def report(self) -> str:
        """Its page without the title; its plots lie beside the archive."""
        path = write_report(self.comparison)
        for plot in path.parent.glob("*.png") if self.plots else []:
            shutil.copy(plot, HERE / self.name / plot.name)
        text = path.read_text().partition("\n")[2].strip()
        return re.sub(r"\]\(([^)/]+\.png)\)", rf"](docs/results/{self.name}/\1)", text)

    def gap(self, method: str, control: str) -> str:
        """Of a method to a control."""
        found = scores(self.rows, COLUMNS[self.comparison.protocol])
        control = best_control(self.comparison, self.rows) if control == "best" else control
        return gap_text(next(one for one in differences(found, control) if one.method == method))

    def seeds(self, method: str, control: str) -> str:
        """Among as many comparisons as there are other methods."""
        found = scores(self.rows, COLUMNS[self.comparison.protocol])
        shared = found[method].keys() & found[control].keys()
        gaps = np.array([found[method][seed] - found[control][seed] for seed in shared])
        return str(seeds_needed(gaps.mean() / gaps.std(ddof=1), len(self.comparison.methods) - 1))


def figures(name: str) -> dict[str, float]:
    """Of a benchmark's last line."""
    found: dict[str, float] = json.loads((HERE / name).read_text().splitlines()[-1])
    return found


def cell(found: dict[str, float], key: str, form: str) -> str:
    """A figure with its error."""
    return f"{found[key]:{form}} ± {found[f'{key}_error']:{form.lstrip('+')}}"


def horizon(*pairs: str) -> str:
    """Rows of `benchmarks/label_horizon.py`'s differences on held-out images."""
    found, rows = figures("label_horizon.txt"), []
    for pair in pairs:
        keys = [f"{pair.replace('-', '_')}_held_out_{step}" for step in (1, 5, 25, 125)]
        rows.append(" | ".join([pair.replace("-", " − "), *(cell(found, key, "+.4f") for key in keys)]))
    return "\n".join(f"| {row} |" for row in rows)


def duels(*pairs: str) -> str:
    """Rows of `benchmarks/label_duel.py`: how often the first labelling of a pair is preferred."""
    found, keys = figures("label_duel.txt"), ("duel", "shuffled_duel", "first_order_duel", "batch", "first_order_batch")
    rows = [[pair.replace("-", " or "), *(cell(found, f"{pair}_{key}", ".3f") for key in keys)] for pair in pairs]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def heads(*labels: str) -> str:
    """Rows of the same: how a labelling stands in the head."""
    found = figures("label_duel.txt")
    return "\n".join(
        f"| {name} | {cell(found, f'{name}_known', '.3f')} | {cell(found, f'{name}_norm', '.3f')} |" for name in labels
    )


def build(template: str, plots: bool = True) -> str:
    """The page; writes the plots, too."""
    studies: dict[str, Study] = {}
    with tempfile.TemporaryDirectory() as scratch:

        def value(match: re.Match[str]) -> str:
            what, *rest = match[1].split()
            if what in PIECES:
                return PIECES[what](*rest)
            name, *rest = rest
            if name not in studies:
                studies[name] = Study(name, Path(scratch), plots)
            return str(getattr(studies[name], what)(*rest))

        return re.sub(r"\{\{(.+?)\}\}", value, template, flags=re.DOTALL)


PIECES: dict[str, Callable[..., str]] = {"horizon": horizon, "duels": duels, "heads": heads}

if __name__ == "__main__":
    (ROOT / "RESULTS.md").write_text(build((HERE / "template.md").read_text()))
