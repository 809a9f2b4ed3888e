"""The figures of the page, drawn with matplotlib."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

# The same bytes on every machine, so that a test can compare the files.
DETERMINISTIC: dict[Any, Any] = {"svg.hashsalt": "study", "svg.fonttype": "none", "font.size": 9}


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
