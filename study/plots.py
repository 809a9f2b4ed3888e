"""Reference loss curves of every family, with their seeds: what a healthy run looks like."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

from bert_jax.utils import io as folders
from study.hypotheses.architecture import ALBERT, BERT, ROBERTA, RTD, SPANBERT
from study.metrics import Record

matplotlib.use("Agg")
import matplotlib.pyplot as plt

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


def write(store: dict[str, Any], out: Path) -> list[Path]:
    """FAMILY.csv and FAMILY.png for every family that has a run."""
    out.mkdir(parents=True, exist_ok=True)
    made = []
    for family, arm in FAMILIES.items():
        runs = sorted((r for r in store["runs"] if r["arm"] == arm.name), key=lambda r: r["seed"])
        if runs:
            folders.write_text(out / f"{family}.csv", table(runs))
            _draw(family, runs, out / f"{family}.png")
            made += [out / f"{family}.csv", out / f"{family}.png"]
    return made


def table(runs: Sequence[Record]) -> str:
    """A line for each logged step of each run; empty where a metric was not logged."""
    metrics = sorted({m for r in runs for m in r["curve"]})
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(["run", "seed", "step", *metrics])
    for r in runs:
        curves = {m: dict(map(tuple, r["curve"].get(m, ()))) for m in metrics}
        for step in sorted({s for c in curves.values() for s in c}):
            lines.writerow(
                [r["name"], r["seed"], step, *(curves[m].get(step, "") for m in metrics)]
            )
    return text.getvalue()


def _draw(family: str, runs: Sequence[Record], path: Path) -> None:
    logged = {m.removeprefix("eval_") for r in runs for m in r["curve"]}
    shown = [(title, m) for title, m in PANELS if m in logged] or PANELS[:1]  # none was a number
    figure, axes = plt.subplots(1, len(shown), figsize=(4.2 * len(shown), 3.2), squeeze=False)
    for axis, (title, metric) in zip(axes[0], shown, strict=True):
        for r in runs:
            color = f"C{r['seed']}"
            for name, how in ((metric, {}), (f"eval_{metric}", dict(marker="o", markersize=3))):
                if points := r["curve"].get(name):
                    of = "seed" if name == metric else "validation, seed"
                    axis.plot(*zip(*points, strict=True), color=color, label=f"{of} {r['seed']}",
                              alpha=0.5 if name == metric else 1.0, **how)  # fmt: skip
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("step", fontsize=8)
        axis.grid(alpha=0.25)
        if axis.lines:
            axis.legend(fontsize=6)
    figure.suptitle(f"{family}: {runs[0]['parameters']:,} parameters", fontsize=11)
    figure.tight_layout()
    figure.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(figure)
