"""Print a table of trained runs on their validation rows, beside what scores the same without
learning.

    python benchmarks/families.py runs/families/demo*

All runs are scored under one masking (single tokens, 15 %, always shown as the mask token),
whatever they were trained with. `own` is the loss where the mask token is shown under the run's
own masking, from its last evaluation. A line below the table has SpanBERT's boundary term beside
word frequencies at the same places, with the standard error over the evaluation's batches.
"""

import argparse
from pathlib import Path

import jax
import numpy as np

import bert_jax
from bert_jax.config import read_config, replace
from bert_jax.data.corpus import open_corpus
from bert_jax.inference.evaluation.evaluate import Evaluation, evaluate_corpus
from bert_jax.inference.evaluation.masked_places import ratio
from bert_jax.training.assemble import assemble
from bert_jax.utils import metrics_log

HEADER = (
    "config", "steps", "[MASK] loss", "right", "frequencies", "counts of both neighbors",
    "model - counts", "own masking (frequencies)", "pairs (chance .5)",
    "AUC (counts; shuffled rows)", "recall, precision",
)  # fmt: skip


def table_row(run: Path) -> list[str]:
    model = bert_jax.load(run)
    length = str(model.config.encoder.max_length)
    corpus = open_corpus(model.config.data.path.replace("{length}", length))
    scores = evaluate_corpus(model, corpus)
    last = next(r for r in reversed(metrics_log.read_metrics(run)) if "eval_loss" in r)
    masked = scores.masked
    difference, error = masked.difference()
    return [
        run.name,
        str(last["step"]),
        f"{masked.model.loss.mean():.3f}",
        f"{masked.model.in_top(1).mean():.1%}",
        f"{masked.unigram.loss.mean():.3f}, {masked.unigram.in_top(1).mean():.1%}",
        f"{masked.bigram.loss.mean():.3f}, {masked.bigram.in_top(1).mean():.1%}",
        f"{difference:+.3f} ± {error:.3f}",
        f"{last['eval_mask_loss']:.3f} ({last['eval_unigram_loss']:.3f})",
        *pair_cells(scores),
    ]


def pair_cells(scores: Evaluation) -> list[str]:
    pairs, replaced = scores.pairs, scores.replaced
    pair = "" if pairs is None else f"{pairs.accuracy:.3f} ± {pairs.standard_error:.3f}"
    if replaced is None:
        return [pair, "", ""]
    precision = "none flagged" if replaced.precision is None else f"{replaced.precision:.0%}"
    auc = f"{replaced.auc:.3f} ({replaced.bigram_auc:.3f}; {replaced.shuffled_auc:.3f})"
    return [pair, auc, f"{replaced.recall:.1%}, {precision}"]


def boundary_line(run: Path) -> str | None:
    """The boundary term minus word frequencies, where the mask token is shown."""
    config = read_config(run / "config.json")
    if not getattr(config.objective, "sbo_weight", 0):
        return None
    assembled = assemble(replace(config, run=dict(dir=str(run))))
    params = bert_jax.load(run).params
    terms = [
        jax.device_get(assembled.steps.evaluate(params, assembled.steps.to_devices(batch)))
        for batch in assembled.held_out_batches()
    ]
    totals, baselines, counts = (
        np.array([getattr(t[name], field) for t in terms], float)
        for name, field in (
            ("sbo_mask_loss", "total"),
            ("sbo_unigram_loss", "total"),
            ("sbo_mask_loss", "count"),
        )
    )
    mean, error = ratio(totals - baselines, counts)
    return (
        f"{run.name}: boundary term {totals.sum() / counts.sum():.3f} nat, word frequencies "
        f"{baselines.sum() / counts.sum():.3f}, difference {mean:+.3f} ± {error:.3f} "
        f"({len(terms)} batches, {counts.sum():.0f} tokens)"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("runs", nargs="+", type=Path)
    runs = parser.parse_args().runs
    rows = [HEADER, ["---"] * len(HEADER), *map(table_row, runs)]
    for row in rows:
        print(f"| {' | '.join(row)} |")
    for line in filter(None, map(boundary_line, runs)):
        print(f"\n{line}")


if __name__ == "__main__":
    main()
