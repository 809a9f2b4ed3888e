"""Draw the validation loss of runs at places that show the mask token, and write it as CSV.

    python benchmarks/curves.py families BERT=runs/demo ELECTRA=runs/demo_electra --out docs/curves

writes docs/curves/families.csv and families.png. Dotted lines are word frequencies at the same
places: a run on its dotted line has learned nothing from context. Each run is scored under its own
masking, so runs with other masks or tokenizers cannot be compared with each other, but each can be
compared with its dotted line.
"""

from __future__ import annotations

import argparse
import csv
import math
from pathlib import Path
from typing import NamedTuple

from matplotlib.figure import Figure

from bert_jax.config import read_config
from bert_jax.utils import metrics_log

METRICS = ("eval_mask_loss", "eval_mask_accuracy", "eval_unigram_loss", "eval_rtd_auc")


class Curve(NamedTuple):
    label: str
    lines: list[dict[str, float]]  # {step, tokens, METRICS...} at each evaluation


def read_curve(label: str, run: Path) -> Curve:
    """The evaluations of a run. Tokens are positions of rows, padding included; every stage of a
    run with stages has as many of them in a step."""
    config = read_config(run / "config.json")
    length = config.data.length or config.encoder.max_length
    per_step = config.data.batch_size * length
    lines = [
        {"step": line["step"], "tokens": int(line["step"]) * per_step}
        | {m: line[m] for m in METRICS if math.isfinite(line.get(m, math.nan))}
        for line in metrics_log.read_metrics(run)
        if "eval_mask_loss" in line
    ]
    return Curve(label, lines)


def write_csv(curves: list[Curve], file: Path) -> None:
    """A line for each run and evaluation; empty where a metric was not logged."""
    names = [m for m in METRICS if any(m in line for c in curves for line in c.lines)]
    with file.open("w", newline="", encoding="utf-8") as f:
        writer = csv.writer(f, lineterminator="\n")
        writer.writerow(["run", "step", "tokens", *names])
        for curve in curves:
            for line in curve.lines:
                values = [f"{line[m]:.4f}" if m in line else "" for m in names]
                writer.writerow([curve.label, line["step"], line["tokens"], *values])


def draw(title: str, curves: list[Curve]) -> Figure:
    figure = Figure(figsize=(7.2, 4.4))
    axes = figure.subplots()
    for i, curve in enumerate(curves):
        tokens = [line["tokens"] / 1e6 for line in curve.lines]
        losses = [line["eval_mask_loss"] for line in curve.lines]
        axes.plot(tokens, losses, "o-", color=f"C{i}", markersize=3, label=curve.label)
        frequencies = [line.get("eval_unigram_loss", math.nan) for line in curve.lines]
        axes.plot(tokens, frequencies, ":", color=f"C{i}", alpha=0.6)
    axes.set_xlabel("million tokens")
    axes.set_ylabel("validation loss at [MASK] (nat)")
    axes.set_title(f"{title} (dotted: word frequencies)", fontsize=11)
    axes.grid(alpha=0.25)
    axes.legend(fontsize=8)
    figure.tight_layout()
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("name", help="of the two files")
    parser.add_argument("runs", nargs="+", metavar="LABEL=RUN")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    pairs = [run.partition("=") for run in args.runs]
    if wrong := [run for run, (_, equals, _) in zip(args.runs, pairs, strict=True) if not equals]:
        parser.error(f"{wrong[0]!r} has no label: expected LABEL=RUN")
    curves = [read_curve(label, Path(run)) for label, _, run in pairs]
    if empty := [curve.label for curve in curves if not curve.lines]:
        parser.error(
            f"{empty[0]} has no evaluation with eval_mask_loss: train it with this version"
        )
    args.out.mkdir(parents=True, exist_ok=True)
    write_csv(curves, args.out / f"{args.name}.csv")
    figure = draw(args.name, curves)
    figure.savefig(args.out / f"{args.name}.png", dpi=110, metadata={"Software": None})
    print(f"{args.out / args.name}.csv, .png: {len(curves)} runs")


if __name__ == "__main__":
    main()
