"""Makes RESULTS.md, at the top, from the archives of finished runs beside this file: `make results`.

`template.md` is the page. In it, `{{report STUDY}}` becomes a comparison's report and `{{gap STUDY METHOD CONTROL}}` a
difference with its interval, where CONTROL may be `best`, the control that validated best; `{{horizon LABELS …}}`
becomes rows of `label_horizon.txt`. So no figure of the studies is written by hand; the papers' are.
"""

import json
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from auxlight.comparison.archive import unpack
from auxlight.comparison.cli import read
from auxlight.comparison.report import COLUMNS, best_control, gap_text, write_report
from auxlight.comparison.results import scores, table
from auxlight.comparison.spec import Comparison
from auxlight.comparison.statistics import differences

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SMALL = ROOT / "configs/compare/small"
HORIZON = HERE / "label_horizon.txt"
# Those that share their methods with others.
METHODS = dict.fromkeys(("cifar100_3", "cifar100_20", "cifar100_20_paper"), "methods.yaml")


class Study:
    """A comparison whose runs come from its archive."""

    def __init__(self, name: str, scratch: Path, plots: bool) -> None:
        self.name = name
        self.plots = plots
        files = [SMALL / METHODS[name]] if name in METHODS else []
        words = [word for file in [*files, SMALL / f"{name}.yaml"] for word in ("--config", str(file))]
        self.comparison: Comparison = read([*words, f"--folder={scratch / name}"])[0]
        unpack(self.comparison, HERE / name)
        self.rows = table(self.comparison)

    def report(self) -> str:
        """Its page without the title; its plots lie beside the archive."""
        path = write_report(self.comparison)
        for plot in path.parent.glob("*.png") if self.plots else []:
            shutil.copy(plot, HERE / self.name / plot.name)
        text = path.read_text().partition("\n")[2].strip()
        text = re.sub(r"^## data$\n", "", text, flags=re.MULTILINE)
        return re.sub(r"\]\(([^)/]+\.png)\)", rf"](docs/results/{self.name}/\1)", text)

    def gap(self, method: str, control: str) -> str:
        """Of a method to a control."""
        found = scores(self.rows, COLUMNS[self.comparison.protocol])
        control = best_control(self.comparison, self.rows) if control == "best" else control
        return gap_text(next(one for one in differences(found, control) if one.method == method))


def horizon(*labels: str) -> str:
    """Rows of `benchmarks/label_horizon.py`'s differences on held-out images, of its last line."""
    figures = json.loads(HORIZON.read_text().splitlines()[-1])
    rows = []
    for name in labels:
        keys = [f"{name}_held_out_{step}" for step in (1, 5, 25, 125)]
        cells = [f"{figures[key]:+.4f} ± {figures[f'{key}_error']:.4f}" for key in keys]
        rows.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(rows)


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

        return re.sub(r"\{\{(.+?)\}\}", value, template)


PIECES: dict[str, Callable[..., str]] = {"horizon": horizon}

if __name__ == "__main__":
    (ROOT / "RESULTS.md").write_text(build((HERE / "template.md").read_text()))
