"""Curves and tables from run folders: PNG, and one HTML page that needs nothing else."""

from __future__ import annotations

import base64
import html
from pathlib import Path

import matplotlib

from bert_jax import log

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

Lines = list[dict[str, float]]

CURVES = (  # (title, metric, trivial answer): drawn where a run has the metric
    ("loss", "loss", None),
    ("masked language model loss (nat)", "mlm_loss", "eval_unigram_loss"),
    ("masked language model accuracy", "mlm_accuracy", None),
    ("pair accuracy", "pair_accuracy", None),
    ("span boundary loss (nat)", "sbo_loss", None),
    ("replaced token loss (nat)", "rtd_loss", None),
    ("replaced token recall", "rtd_recall", None),
    ("learning rate", "learning_rate", None),
)


def report(runs: list[Path], out: Path) -> list[Path]:
    """Write `curves.png` and `report.html` into `out`; returns their paths."""
    lines = {run.name: log.read(run) for run in runs}
    if len(lines) < len(runs):
        raise ValueError("two run folders have the same name: rename one, curves go by name")
    for name, rows in lines.items():
        if not rows:
            raise ValueError(f"{name} has no metrics yet: expected a run that logged a step")
    picture, page = out / "curves.png", out / "report.html"
    if out.exists() and {p.name for p in out.iterdir()} - {picture.name, page.name}:
        raise ValueError(f"{out} holds other things than a report: choose another folder")
    out.mkdir(parents=True, exist_ok=True)
    _draw(lines, picture)
    page.write_text(_page(lines, picture.read_bytes()))
    return [picture, page]


def summary(run: Path) -> str:
    """What a run came to, in a few lines."""
    rows = log.read(run)
    last = next((r for r in reversed(rows) if "eval_loss" in r), None)
    if last is None:
        return f"run folder: {run}"
    said = [f"after {last['step']} steps, on the validation text:"]
    if "eval_unigram_loss" in last:
        said.append(
            f"  masked tokens: {last['eval_mlm_loss']:.3f} nat, "
            f"{last['eval_mlm_accuracy']:.1%} right; by word frequency alone "
            f"{last['eval_unigram_loss']:.3f} nat"
        )
    if "eval_pair_accuracy" in last:
        share = last["eval_pair_share"]
        said.append(
            f"  sentence pairs: {last['eval_pair_accuracy']:.1%} right, "
            f"{last['eval_pair_loss']:.3f} nat; always the commoner answer: "
            f"{max(share, 1 - share):.1%}, {log.entropy(share):.3f} nat"
        )
    if "eval_rtd_recall" in last:
        said.append(
            f"  replaced tokens: {last['eval_rtd_recall']:.1%} found, precision "
            f"{last['eval_rtd_precision']:.1%}, AUC {last['eval_rtd_auc']:.3f}"
        )
    return "\n".join([*said, f"run folder: {run}"])


def _draw(lines: dict[str, Lines], path: Path) -> None:
    shown = [c for c in CURVES if any(c[1] in r for rows in lines.values() for r in rows)]
    across = 2
    down = -(-len(shown) // across)
    figure, axes = plt.subplots(down, across, figsize=(11, 3.2 * down), squeeze=False)
    for axis, (title, metric, trivial) in zip(axes.flat, shown, strict=False):
        for number, (name, rows) in enumerate(lines.items()):
            color = f"C{number % 10}"
            _curve(axis, rows, metric, color, label=name, alpha=0.45, linewidth=0.9)
            _curve(axis, rows, f"eval_{metric}", color, label=f"{name}, validation", marker=".")
            if trivial:
                _curve(axis, rows, trivial, color, label=f"{name}, word frequency", linestyle=":")
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("step", fontsize=8)
        axis.grid(alpha=0.25)
        axis.legend(fontsize=7)
    for axis in axes.flat[len(shown) :]:
        axis.set_visible(False)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _curve(axis: Axes, rows: Lines, metric: str, color: str, **how: object) -> None:
    points = [(r["step"], r[metric]) for r in rows if metric in r]
    if points:
        axis.plot(*zip(*points, strict=True), color=color, **how)  # type: ignore[arg-type]


def _page(lines: dict[str, Lines], picture: bytes) -> str:
    last = {name: {k: v for r in rows for k, v in r.items()} for name, rows in lines.items()}
    metrics = sorted(
        {k for values in last.values() for k in values}, key=lambda k: (k != "step", k)
    )
    head = "".join(f"<th>{html.escape(name)}</th>" for name in last)
    body = "".join(
        f"<tr><td>{html.escape(m)}</td>"
        + "".join(
            f"<td>{values[m]:.5g}</td>" if m in values else "<td></td>" for values in last.values()
        )
        + "</tr>"
        for m in metrics
    )
    image = base64.b64encode(picture).decode()
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>bert_jax runs</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; margin: 1.5rem auto; padding: 0 1rem;
  max-width: 72rem }}
img {{ max-width: 100% }}
div {{ overflow-x: auto }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums }}
td, th {{ border-bottom: 1px solid #ccc; padding: .2rem .8rem; text-align: right }}
td:first-child {{ text-align: left }}
</style></head><body>
<h1>Runs</h1>
<img alt="curves" src="data:image/png;base64,{image}">
<h2>Last values</h2>
<div><table><tr><th></th>{head}</tr>{body}</table></div>
</body></html>
"""
