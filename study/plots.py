"""The figures of the page and the reference loss curves, drawn with matplotlib."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from bert_jax.utils import io as files
from study.hypotheses.architecture import ALBERT, BERT, ROBERTA, RTD, SPANBERT
from study.metrics import Record

# The same bytes on every machine, so that a test can compare the files.
DETERMINISTIC: dict[Any, Any] = {"svg.hashsalt": "study", "svg.fonttype": "none", "font.size": 9}

FAMILIES = {
    "bert": BERT,
    "albert": ALBERT,
    "roberta": ROBERTA,
    "electra": RTD,
    "spanbert": SPANBERT,
}
PANELS = (
    ("loss", "loss"),
    ("MLM loss (nat)", "mlm_loss"),
    ("replaced token loss (nat)", "rtd_loss"),
    ("replaced token AUC", "rtd_auc"),
    ("pair loss (nat)", "pair_loss"),
    ("boundary loss (nat)", "sbo_loss"),
)


@dataclass(frozen=True)
class DotPlot:
    """A row per variant with a dot per seed and a bar at the mean."""

    name: str  # of the file
    title: str
    rows: tuple[tuple[str, tuple[float, ...]], ...]  # (label, values)

    @property
    def empty(self) -> bool:
        return not any(map(math.isfinite, (v for _, values in self.rows for v in values)))

    def draw(self) -> Figure:
        rows = [(label, tuple(filter(math.isfinite, values))) for label, values in self.rows]
        rows = [(label, values) for label, values in rows if values]
        height = 0.8 + 0.27 * len(rows)
        figure = Figure(figsize=(6.4, height))
        axes = figure.add_axes((0.41, 0.4 / height, 0.56, 1 - 0.75 / height))
        for y, (_, values) in enumerate(rows):
            axes.plot(values, [y] * len(values), "o-", color=f"C{y % 10}", markersize=5)
            axes.plot([sum(values) / len(values)], [y], "|", color=f"C{y % 10}", markersize=14)
        axes.set_yticks(range(len(rows)), [label for label, _ in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.grid(axis="x", alpha=0.25)
        axes.set_title(self.title)
        return figure


@dataclass(frozen=True)
class Curve:
    label: str
    x: tuple[float, ...]
    values: tuple[tuple[float, ...], ...]  # at each x, one per seed


@dataclass(frozen=True)
class LinePlot:
    """A curve per variant: the mean over seeds, in a band from the lowest to the highest."""

    name: str
    title: str
    x_label: str
    curves: tuple[Curve, ...]

    @property
    def empty(self) -> bool:
        return not any(curve.x for curve in self.curves)

    def draw(self) -> Figure:
        curves = [curve for curve in self.curves if curve.x]
        legend_height = 0.2 * math.ceil(len(curves) / 2)
        height = 3.7 + legend_height
        figure = Figure(figsize=(6.4, height))
        bottom = (0.6 + legend_height) / height
        axes = figure.add_axes((0.1, bottom, 0.87, 1 - 0.3 / height - bottom))
        for curve in curves:
            means = [sum(values) / len(values) for values in curve.values]
            (line,) = axes.plot(curve.x, means, label=curve.label)
            low, high = map(min, curve.values), map(max, curve.values)
            axes.fill_between(curve.x, list(low), list(high), color=line.get_color(), alpha=0.18)
        axes.set_xlabel(self.x_label)
        axes.set_title(self.title)
        axes.grid(axis="y", alpha=0.25)
        figure.legend(loc="lower left", ncols=2, frameon=False, borderaxespad=0.2)
        return figure


Plot = DotPlot | LinePlot


def write_plots(plots: Sequence[Plot], out: Path) -> list[Path]:
    """Write NAME.svg for each plot."""
    out.mkdir(parents=True, exist_ok=True)
    paths = [out / f"{plot.name}.svg" for plot in plots]
    for plot, path in zip(plots, paths, strict=True):
        with matplotlib.rc_context(DETERMINISTIC):
            plot.draw().savefig(path, metadata={"Date": None})
    return paths


def write_curves(results: dict[str, Any], out: Path) -> list[Path]:
    """Write the reference loss curves, FAMILY.csv and FAMILY.png, of each family with a run."""
    out.mkdir(parents=True, exist_ok=True)
    paths = []
    for family, variant in FAMILIES.items():
        runs = [r for r in results["runs"] if r["variant"] == variant.name]
        if runs:
            runs.sort(key=lambda r: r["seed"])
            table, picture = out / f"{family}.csv", out / f"{family}.png"
            files.write_text(table, curves_csv(runs))
            figure = _draw_curves(family, runs)
            figure.savefig(picture, dpi=110, metadata={"Software": None})
            paths += [table, picture]
    return paths


def curves_csv(runs: Sequence[Record]) -> str:
    """A line per run and logged step; empty where a metric was not logged."""
    metrics = sorted({m for r in runs for m in r["curves"]})
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["run", "seed", "step", *metrics])
    for r in runs:
        curves = [dict(r["curves"].get(m, ())) for m in metrics]
        for step in sorted({s for curve in curves for s in curve}):
            writer.writerow([r["name"], r["seed"], step, *(c.get(step, "") for c in curves)])
    return text.getvalue()


def _draw_curves(family: str, runs: Sequence[Record]) -> Figure:
    logged = {m.removeprefix("eval_") for r in runs for m in r["curves"]}
    panels = [(title, m) for title, m in PANELS if m in logged] or PANELS[:1]  # none was finite
    figure = Figure(figsize=(4.2 * len(panels), 3.2))
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axis, (title, metric) in zip(axes, panels, strict=True):
        for r in runs:
            color, seed, curves = f"C{r['seed']}", f"seed {r['seed']}", r["curves"]
            if points := curves.get(metric):
                axis.plot(*zip(*points, strict=True), color=color, alpha=0.5, label=seed)
            if points := curves.get(f"eval_{metric}"):
                x, y = zip(*points, strict=True)
                axis.plot(x, y, "o-", color=color, markersize=3, label=f"validation, {seed}")
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("step", fontsize=8)
        axis.grid(alpha=0.25)
        if axis.lines:
            axis.legend(fontsize=6)
    figure.suptitle(f"{family}: {runs[0]['parameters']:,} parameters", fontsize=11)
    figure.tight_layout()
    return figure
