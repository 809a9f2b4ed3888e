"""Print a table of trained runs on their validation rows, beside what scores the same without
learning.

    python benchmarks/families.py runs/families/demo*

All runs are scored under one masking (single tokens, 15 %, always shown as the mask token),
whatever they were trained with. `own` is the loss where the mask token is shown under the run's
own masking, from its last evaluation.
"""

import argparse
from pathlib import Path

import bert_jax
from bert_jax.data.corpus import open_corpus
from bert_jax.inference.evaluation.evaluate import Evaluation, evaluate_corpus
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("runs", nargs="+", type=Path)
    rows = [HEADER, ["---"] * len(HEADER), *map(table_row, parser.parse_args().runs)]
    for row in rows:
        print(f"| {' | '.join(row)} |")


if __name__ == "__main__":
    main()
