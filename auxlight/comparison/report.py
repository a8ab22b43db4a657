"""From a table of runs to a page that says what may be said."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

import pandas as pd
from matplotlib.figure import Figure

from auxlight.comparison.page import html_page
from auxlight.comparison.results import LABELS, curves, missing, scores, table
from auxlight.comparison.spec import Comparison
from auxlight.comparison.statistics import Difference, Interval, best_of, differences, mean_interval
from auxlight.comparison.tuning import Setting

# What a protocol calls the test accuracy.
COLUMNS = {"validation": "test_accuracy", "paper": "last_epochs_accuracy"}


def write_report(comparison: Comparison) -> Path:
    """Write `report.md`, the same as `report.html`, and plots into the comparison's folder.

    Returns:
        The path of `report.md`.
    """
    comparison.folder.mkdir(parents=True, exist_ok=True)
    rows = table(comparison)
    lines = ["# Comparison", ""]
    absent = missing(comparison)
    if absent:
        counts = Counter(_name(comparison, run.data, run.method) for run in absent)
        names = ", ".join(f"{count} of {name}" for name, count in counts.items())
        lines += [f"**{len(absent)} runs still to come**: {names}.", ""]
    untuned = [
        _name(comparison, data, method)
        for data in comparison.data
        for method in comparison.methods
        if comparison.chosen(data, method) is None
    ]
    if untuned:
        lines += [f"**Not tuned yet, nor run**: {', '.join(untuned)}.", ""]
    if len(rows):
        origin = {name: sorted(set(rows[name])) for name in ("commit", "versions", "device")}
        tuning = ", and the tuning's" if comparison.tuning else ""
        made = "; ".join(f"{name} {' or '.join(values)}" for name, values in origin.items())
        images = ", each with training and validation images of its own" if comparison.images_by_seed else ""
        lines += [
            f"{len(rows)} runs{tuning}; {made}. ± is half of a 95 % confidence interval over seeds{images}.",
            "",
        ]
        mixed = [name for name, values in origin.items() if len(values) > 1]
        if mixed:
            lines += [f"**Runs that are compared differ in {' and '.join(mixed)}**: `runs.csv` says which.", ""]
        if comparison.protocol == "paper":
            lines += ["Test accuracy is the mean of those after each of the last 15 epochs (the paper's protocol).", ""]
        lines += _tuning(comparison)
        for data in comparison.data:
            part = rows[rows["data"] == data]
            if len(part):
                lines += _section(comparison, data, part)
    path = comparison.folder / "report.md"
    text = "\n".join(lines) + "\n"
    path.write_text(text)
    path.with_suffix(".html").write_text(html_page(text, comparison.folder))
    return path


def _tuning(comparison: Comparison) -> list[str]:
    """What each method was given, and what it chose."""
    if comparison.tuning is None:
        return []
    seeds = len(comparison.tuning.seeds)
    lines = [
        f"Every method tried up to {comparison.tuning.budget} settings with {seeds} seed(s); validation chose.",
        "",
    ]
    lines += ["| method | settings tried | chosen |", "|---|---|---|"]
    for data in comparison.data:
        for method in comparison.methods:
            chosen = comparison.chosen(data, method)
            if chosen is not None:
                name = _name(comparison, data, method)
                lines.append(f"| {name} | {len(comparison.settings(method))} | {_setting(chosen)} |")
    return [*lines, ""]


def _name(comparison: Comparison, data: str, method: str) -> str:
    """Of a method, and of the data where there is more than one set."""
    return method if len(comparison.data) == 1 else f"{data}/{method}"


def best_control(comparison: Comparison, rows: pd.DataFrame) -> str:
    """The control that validated best, of one data set's rows; the test scores are not read."""
    validation = scores(rows, "validation_accuracy")
    return best_of(validation, [name for name in comparison.controls if name in validation])


def _setting(setting: Setting) -> str:
    return ", ".join(f"{key.split('.')[-1]} {value}" for key, value in setting.items()) or "(no choice)"


def _section(comparison: Comparison, data: str, rows: pd.DataFrame) -> list[str]:
    column = COLUMNS[comparison.protocol]
    test = scores(rows, column)
    controls = [name for name in comparison.controls if name in test]
    lines = [f"## {data}", ""] if len(comparison.data) > 1 else []
    seconds = rows.groupby("method")["seconds_per_epoch"].mean()
    # On a CPU processor time, which a busy machine stretches less.
    on_cpu = set(rows["device"]) == {"CPU"}
    cost = (rows["cpu_seconds"] if on_cpu else rows["seconds"]).div(rows["epochs"]).groupby(rows["method"]).mean()
    compared: dict[str, list[Difference]] = {}
    if controls:
        best = best_control(comparison, rows)
        for control in dict.fromkeys([comparison.reference, best]):
            if control in test:
                paired = {name: found for name, found in test.items() if found.keys() & test[control].keys()}
                compared[control] = differences(paired, control, len(comparison.methods) - 1)
        lines += [f"Best control by validation accuracy: **{best}**.", ""]
    unit = cost.get(comparison.reference)
    f1 = comparison.protocol == "validation"  # the paper's protocol has none
    heads = ["method", "seeds", "test accuracy", "validation", *(["F1"] if f1 else []), "epoch"]
    heads += [f"− {control}" for control in compared]
    lines += [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    for method in test:
        own = rows[rows["method"] == method]
        cells = [method, str(len(own)), percent(mean_interval(own[column].to_numpy()))]
        cells += [f"{100 * own[name].mean():.1f}" for name in ("validation_accuracy", *(["test_f1"] if f1 else []))]
        cells += [f"{seconds[method]:.1f} s" + (f" = {cost[method] / unit:.1f} ×" if unit else "")]
        for found in compared.values():
            cells.append(next((gap_text(one) for one in found if one.method == method), ""))
        lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        f"epoch: wall time of training, and {'processor time' if on_cpu else 'that'} in epochs of "
        f"{comparison.reference}. ±: of this difference alone; p: paired t-test, corrected by Holm for "
        f"{len(comparison.methods) - 1} comparisons with that control.",
        "",
    ]
    diverged = rows[rows["diverged"]].groupby("method", sort=False).size()
    if len(diverged):
        those = ", ".join(f"{method} ({count})" for method, count in diverged.items())
        judged = (
            "are judged by their best checkpoint before"
            if comparison.protocol == "validation"
            else "count as chance in the epochs after"
        )
        lines.append(f"- Runs that diverged, and {judged}: {those}.")
    for control, found in compared.items():
        apart = [one.method for one in found if one.is_distinguishable]
        untested = [one.method for one in found if one.p != one.p]
        alike = [one.method for one in found if not one.is_distinguishable and one.method not in untested]
        lines.append(f"- Distinguishable from {control}: {', '.join(apart) or 'none'}.")
        lines.append(f"- Not distinguishable from {control}: {', '.join(alike) or 'none'}.")
        if untested:
            lines.append(f"- Of one seed or one difference, so that nothing can be tested: {', '.join(untested)}.")
    lines += _diagnostics(rows)
    plots = _plots(comparison, data, rows)
    return [*lines, "", *(f"![{path.stem}]({quote(path.name)})" for path in plots), ""]


def _diagnostics(rows: pd.DataFrame) -> list[str]:
    """How far each method's trunk is pulled and moved, and what its labels are like; means over seeds."""
    pulled = [name for name in rows.columns if name.startswith(("gradients/", "trunk/"))]
    lines = _means(
        rows, pulled, "Gradients for the trunk on 64 validation images, last steps of epochs: epochs' means."
    )
    return lines + _means(
        rows,
        LABELS,
        "The last epoch's labels (see `LabelUsage`), weights and mean reward; the entropy loss is minus the entropy.",
    )


def _means(rows: pd.DataFrame, names: Sequence[str], note: str) -> list[str]:
    columns = [name for name in names if name in rows.columns and rows[name].notna().any()]
    if not columns:
        return []
    lines = ["", note, "", f"| method | {' | '.join(columns)} |", f"|{'---|' * (len(columns) + 1)}"]
    for method, row in rows.groupby("method", sort=False)[columns].mean().iterrows():
        if row.notna().any():
            cells = ["" if value != value else f"{value:.3g}" for value in row]
            lines.append(f"| {method} | {' | '.join(cells)} |")
    return lines


def percent(interval: Interval) -> str:
    """Mean ± half of the interval, in percent."""
    return f"{100 * interval.mean:.1f}" + (f" ± {100 * interval.half:.1f}" if interval.half == interval.half else "")


def gap_text(found: Difference) -> str:
    """Difference ± half of its interval, in points, and its corrected p."""
    interval = found.interval
    if interval.half != interval.half:
        return f"{100 * interval.mean:+.1f}"
    p = "no test" if found.p != found.p else f"p {found.adjusted:.2g}"
    return f"{100 * interval.mean:+.1f} ± {100 * interval.half:.1f} ({p})"


def _plots(comparison: Comparison, data: str, rows: pd.DataFrame) -> list[Path]:
    """Learning curves and bars, as PNG."""
    lines, bars = Figure(figsize=(7, 4), dpi=110, layout="constrained"), Figure(figsize=(7, 4), dpi=110)
    axes = lines.add_subplot()
    for method, frame in curves(comparison, data, "val/accuracy").items():
        mean = frame.mean(axis=1)
        (line,) = axes.plot(mean.index + 1, mean, label=method)
        axes.fill_between(mean.index + 1, frame.min(axis=1), frame.max(axis=1), alpha=0.15, color=line.get_color())
    axes.set_xlabel("epoch")
    axes.set_ylabel("validation accuracy (mean, and range over seeds)")
    axes.legend(fontsize=8)
    axes = bars.add_subplot()
    names = list(dict.fromkeys(rows["method"]))
    found = [mean_interval(rows[rows["method"] == name][COLUMNS[comparison.protocol]].to_numpy()) for name in names]
    axes.barh(names, [one.mean for one in found], xerr=[0 if one.half != one.half else one.half for one in found])
    axes.invert_yaxis()
    axes.set_xlabel("test accuracy (mean, and 95 % confidence interval)")
    bars.tight_layout()
    paths = [comparison.folder / f"{kind}_{data}.png" for kind in ("curves", "bars")]
    for figure, path in zip((lines, bars), paths, strict=True):
        figure.savefig(path)
    return paths
