"""Curves and tables of run folders: PNG files and one self-contained HTML page."""

from __future__ import annotations

import base64
import html
import os
from pathlib import Path

import matplotlib
import numpy as np

from bert_jax.tasks import results
from bert_jax.tasks.results import Results
from bert_jax.utils import metrics_log

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from bert_jax.training import report_errors
from bert_jax.training.run_summary import MASKED_NOTHING, masked_nothing

matplotlib.rcParams["text.parse_math"] = False  # labels may contain dollar signs

Lines = list[dict[str, float]]

CURVES = (  # (title, metric, (metric, name) of its baseline): drawn where a run has the metric
    ("loss", "loss", None),
    ("loss at [MASK] (nat)", "mask_loss", ("eval_unigram_loss", "unigram baseline")),
    ("accuracy at [MASK]", "mask_accuracy", None),
    ("masked language model loss, copies included (nat)", "mlm_loss", None),
    ("sentence-pair loss (nat)", "pair_loss", ("eval_pair_baseline_loss", "label shares")),
    ("sentence-pair accuracy (validation: balanced)", "pair_accuracy", None),
    (
        "span boundary loss at [MASK] (nat)",
        "sbo_mask_loss",
        ("eval_sbo_unigram_loss", "unigram baseline"),
    ),
    ("span boundary loss, copies included (nat)", "sbo_loss", None),
    ("replaced token loss (nat)", "rtd_loss", None),
    ("replaced token recall", "rtd_recall", None),
    ("AUC of replaced tokens", "rtd_auc", None),
    ("accuracy on training batches", "task_accuracy", None),
    ("accuracy", "accuracy", None),
    ("word accuracy", "word_accuracy", None),
    ("word F1", "word_f1", None),
    ("F1", "f1", None),
    ("best F1", "best_f1", None),
    ("micro F1", "f1_micro", None),
    ("macro F1", "f1_macro", None),
    ("exact match", "exact_match", None),
    ("Matthews correlation", "matthews", None),
    ("Pearson correlation", "pearson", None),
    ("Spearman correlation", "spearman", None),
    ("nDCG@10", "ndcg@10", None),
    ("MRR@10", "mrr@10", None),
    ("gradient norm", "gradient_norm", None),
    ("learning rate", "learning_rate", None),
)
CHANCE = {"pair_accuracy": 0.5, "rtd_auc": 0.5}  # what a constant answer scores


def report(runs: list[Path], out: Path) -> list[Path]:
    """Write `curves.png`, `report.html` and, for runs that classify, `confusion.png` and
    `calibration.png` into `out`; returns their paths. A folder of several seeds counts as several
    runs. The page also has the scores of each label, and the rows with the largest loss.

    ValueError: two runs of one name, a run without metrics, an `out` with other files in it.
    """
    runs = [Path(os.path.abspath(run)) for run in runs]  # `.` has a name
    names = [run.name for run in runs]
    if len(set(names)) < len(names):
        raise ValueError(
            "two run folders have the same name: rename one, since curves are labeled by name"
        )
    folders = {name: seed for run in runs for name, seed in _seeds(run).items()}
    lines = {name: metrics_log.read_metrics(run) for name, run in folders.items()}
    for name, rows in lines.items():
        if not rows:
            raise ValueError(f"{name} has no metrics yet: expected a run that has logged a step")
    run_results = {
        run.name: values for run in runs if (values := results.read_results(run)) is not None
    }
    errors = report_errors.read_all(folders)
    curves, confusion, calibration, page = (out / name for name in FILES)
    if out.exists() and {p.name for p in out.iterdir()} - set(FILES):
        raise ValueError(
            f"{out} contains files that are not part of a report: choose another folder"
        )
    out.mkdir(parents=True, exist_ok=True)
    _draw(lines, curves)
    pictures = {"Curves": curves}
    if _draw_confusion(run_results, confusion):
        pictures["Confusion matrix"] = confusion
    if report_errors.draw_calibration(errors, calibration):
        pictures["Calibration"] = calibration
    for picture in {confusion, calibration} - set(pictures.values()):
        picture.unlink(missing_ok=True)  # of an earlier report on other runs
    analysis = report_errors.label_sections(folders) + report_errors.worst_sections(errors)
    spent = {name: metrics_log.goodput(run) for name, run in folders.items()}
    page.write_text(
        _page(lines, run_results, pictures, spent, analysis), encoding="utf-8", errors="replace"
    )
    return [*pictures.values(), page]


FILES = ("curves.png", "confusion.png", "calibration.png", "report.html")


def _seeds(run: Path) -> dict[str, Path]:
    """Name -> folder of a run, or of each of its seeds."""
    seeds = sorted(run.glob("seed_*/metrics.jsonl"))
    if not seeds or (run / "metrics.jsonl").is_file():
        return {run.name: run}
    return {f"{run.name}/{file.parent.name}": file.parent for file in seeds}


def _draw(lines: dict[str, Lines], path: Path) -> None:
    logged = {name for rows in lines.values() for r in rows for name in r}
    curves = [c for c in CURVES if {c[1], f"eval_{c[1]}"} & logged]
    columns = 2
    rows_of_axes = max(1, -(-len(curves) // columns))
    size = (11, 3.2 * rows_of_axes)
    figure, axes = plt.subplots(rows_of_axes, columns, figsize=size, squeeze=False)
    for axis, (title, metric, baseline) in zip(axes.flat, curves, strict=False):
        for number, (name, rows) in enumerate(lines.items()):
            color = f"C{number % 10}"
            _curve(axis, rows, metric, color, label=name, alpha=0.45, linewidth=0.9)
            _curve(axis, rows, f"eval_{metric}", color, label=f"{name}, validation", marker=".")
            if baseline:
                column, called = baseline
                _curve(axis, rows, column, color, label=f"{name}, {called}", linestyle=":")
        if metric in CHANCE:
            axis.axhline(CHANCE[metric], color="gray", linestyle=":", label="chance")
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("step", fontsize=8)
        axis.grid(alpha=0.25)
        axis.legend(fontsize=7)
    for axis in axes.flat[len(curves) :]:
        axis.set_visible(False)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _curve(axis: Axes, rows: Lines, metric: str, color: str, **style: object) -> None:
    # matplotlib cannot place numbers beyond float32
    logged = [(r["step"], r[metric]) for r in rows if metric in r]
    points = [(step, value if abs(value) < 1e39 else np.nan) for step, value in logged]
    if points:
        marker = {"marker": "."} if len(points) == 1 else {}  # a line of one point is not drawn
        axis.plot(*zip(*points, strict=True), color=color, **marker | style)  # type: ignore[arg-type]


def _draw_confusion(run_results: dict[str, Results], path: Path) -> bool:
    """Draw a panel per run, of its test split where there is one, else of dev; returns False where
    no run has classes."""
    matrices = {
        n: values["confusion"] for n, values in run_results.items() if "confusion" in values
    }
    if not matrices:
        return False
    max_labels = max(len(c["labels"]) for c in matrices.values())
    size = min(1.6 + 0.55 * max_labels, 12)
    figure, axes = plt.subplots(
        1, len(matrices), figsize=(size * len(matrices) + 1, size + 0.6), squeeze=False
    )
    for axis, (name, confusion) in zip(axes.flat, matrices.items(), strict=True):
        split = report_errors.shown_split(confusion)
        counts = np.array(confusion[split])
        axis.imshow(counts / np.maximum(counts.sum(axis=1, keepdims=True), 1), "Blues", vmin=0)
        if max_labels <= 20:
            for (i, j), n in np.ndenumerate(counts):
                dark = n > counts[i].sum() / 2
                axis.text(j, i, n, ha="center", va="center", fontsize=7, color="w" if dark else "k")
        labels = [_printable(label) for label in confusion["labels"]]
        axis.set_xticks(range(len(counts)), labels, rotation=60, fontsize=7)
        axis.set_yticks(range(len(counts)), labels, fontsize=7)
        axis.set_xlabel("predicted", fontsize=8)
        axis.set_ylabel("true", fontsize=8)
        axis.set_title(f"{name}, {split}", fontsize=9)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return True


def _printable(label: str) -> str:
    """A label that can be drawn: at most 40 characters, without half a surrogate pair."""
    label = label.encode(errors="replace").decode()
    return label if len(label) <= 40 else f"{label[:39]}…"


def _page(
    lines: dict[str, Lines],
    run_results: dict[str, Results],
    pictures: dict[str, Path],
    spent: dict[str, dict[str, float]],
    analysis: str = "",
) -> str:
    last = {name: _last_values(rows) for name, rows in lines.items()}
    notes = "".join(
        f"<p>{html.escape(name)}: {MASKED_NOTHING}.</p>"
        for name, values in last.items()
        if masked_nothing(values)
    )
    body = notes + "".join(
        f'<h2>{title}</h2><img alt="{title}" src="data:image/png;base64,'
        f'{base64.b64encode(path.read_bytes()).decode()}">'
        for title, path in pictures.items()
    )
    if run_results:
        body = f"<h2>Results</h2>{_table(_comparison(run_results))}" + body
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
td:first-child, .text td, .text th {{ text-align: left; vertical-align: top }}
</style></head><body>
<h1>Runs</h1>
{body}
{analysis}
<h2>Last values</h2>
{_table(last)}
<h2>Where the time went (seconds)</h2>
{_table(spent)}
</body></html>
"""


def _last_values(rows: Lines) -> dict[str, float]:
    """The newest value of every metric. Those of evaluation are of the newest one: a figure that it
    lacks (no token was masked) has no value, and not an old one."""
    evaluated = [r["step"] for r in rows if any(k.startswith("eval_") for k in r)]
    newest = max(evaluated, default=None)
    return {
        k: v for r in rows for k, v in r.items() if not k.startswith("eval_") or r["step"] == newest
    }


def _comparison(run_results: dict[str, Results]) -> dict[str, dict[str, float]]:
    """Run -> split and metric -> value; the median where there are several seeds."""
    return {
        name: {f"{s} {m}": v for s in results.SPLITS for m, v in values.get(s, {}).items()}
        for name, values in run_results.items()
    }


def _table(columns: dict[str, dict[str, float]]) -> str:
    """An HTML table: one column per run, one row per metric, the step first."""
    metrics = sorted({k for values in columns.values() for k in values})
    metrics.sort(key=lambda k: k != "step")
    head = "".join(f"<th>{html.escape(name)}</th>" for name in columns)
    body = "".join(
        f"<tr><td>{html.escape(m)}</td>"
        + "".join(
            f"<td>{values[m]:.5g}</td>" if m in values else "<td></td>"
            for values in columns.values()
        )
        + "</tr>"
        for m in metrics
    )
    return f"<div><table><tr><th></th>{head}</tr>{body}</table></div>"
