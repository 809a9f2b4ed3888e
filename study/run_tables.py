"""The tables of all runs at the end of the page, and what runs lack, in Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from study.hypothesis import Hypothesis
from study.jobs import QA
from study.metrics import Record, short_number
from study.verdict import values_by_seed


def run_table(records: Sequence[Record]) -> str:
    head = ("run", "hypotheses", "steps", "tokens", "FLOPs", "as published", "parameters",
            "tasks (%)")  # fmt: skip
    rows = []
    for r in records:
        # SQuAD's script gives scores in percent
        scores = {n: t["value"] * (1 if n == QA else 100) for n, t in sorted(r["tasks"].items())}
        rows.append(
            (
                f"`{r['name']}`",
                r["hypotheses"],
                str(r["steps"]),
                short_number(r["tokens"]),
                f"{r['flops']['sparse']:.2e}",
                f"{r['flops']['published']:.2e}",
                short_number(r["parameters"]),
                ", ".join(f"{name} {score:.1f}" for name, score in scores.items()),
            )
        )
    return table(head, rows)


def mask_table(records: Sequence[Record]) -> list[str]:
    """What each run restores, beside what needs no learning, and what its discriminator finds."""
    head = ("run", "loss at [MASK] (nat), right", "word frequencies", "counts of both neighbors",
            "model - counts", "AUC (counts; shuffled rows)", "recall, precision")  # fmt: skip
    rows = []
    for r in records:
        if not (scores := r.get("held_out")):
            continue
        cells = [
            f"{scores[f'{k}_loss']:.3f}, {scores[f'{k}_accuracy']:.1%}"
            for k in ("mask", "unigram", "bigram")
        ]
        error = scores.get("mask_minus_bigram_se")
        cells.append(f"{scores['mask_minus_bigram']:+.3f}" + (f" ± {error:.3f}" if error else ""))
        if "rtd_auc" in scores:
            auc, counts, shuffled = (
                f"{scores[k]:.3f}" for k in ("rtd_auc", "bigram_auc", "rtd_shuffled_auc")
            )
            precision = scores.get("rtd_precision")
            found = "none flagged" if precision is None else f"{precision:.0%}"
            cells += [f"{auc} ({counts}; {shuffled})", f"{scores['rtd_recall']:.1%}, {found}"]
        rows.append((f"`{r['name']}`", *cells, *[""] * (len(head) - 1 - len(cells))))
    note = "The mask loss of an ELECTRA run is its generator's."
    return [table(head, rows), note] if rows else ["No run has been scored."]


def bullets(items: Sequence[str]) -> str:
    return "\n".join(f"- {item}" for item in items)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ("---", *["---:"] * (len(head) - 1)), *rows]
    return "\n".join("| " + " | ".join(c.replace("|", "\\|") for c in row) + " |" for row in lines)


def below_counts(hypothesis: Hypothesis, records: Sequence[Record]) -> list[str]:
    """Which variants do not beat counts, and what they lack."""
    lacking = []
    for row in hypothesis.rows:
        name = row.variant.name
        values = values_by_seed(records, name, "over_counts").values()
        if values and statistics.mean(values) <= 0:
            is_rtd = values_by_seed(records, name, "rtd_auc")
            unit = "AUC" if is_rtd else "nat"
            lacking.append(f"`{name}` by {-statistics.mean(values):.3f} {unit}")
    if not lacking:
        return []
    return [
        f"**Below counts of both neighbors:** {', '.join(lacking)}. Longer runs would have to beat "
        "them before statements about what these variants teach can be judged."
    ]
