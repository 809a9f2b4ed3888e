"""The tables of all runs at the end of the page, and what runs lack, in Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from study.hypothesis import Hypothesis
from study.jobs import QA
from study.metrics import Record, short_number
from study.verdict import values_by_seed


def run_table(records: Sequence[Record], baselines: dict[str, float | None]) -> str:
    """All runs, and what the tasks give without pre-training."""
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
    known = {name: score for name, score in sorted(baselines.items()) if score is not None}
    if known:
        scores = ", ".join(f"{name} {100 * score:.1f}" for name, score in known.items())
        rows.append(("no encoder, no pre-training", *[""] * (len(head) - 2), scores))
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


def baselines_of_all(baselines: dict[str, float | None]) -> dict[str, float]:
    """The baselines in percent; none if that of a task is not known, since means over different
    tasks do not compare."""
    known = {task: 100 * score for task, score in baselines.items() if score is not None}
    return known if len(known) == len(baselines) else {}


def below_baselines(
    hypothesis: Hypothesis, records: Sequence[Record], baselines: dict[str, float | None]
) -> list[str]:
    """Which variants score less on the tasks than what needs no encoder, by how many points, and on
    which tasks they score more."""
    known = baselines_of_all(baselines)
    if "tasks" not in hypothesis.metrics or not known:
        return []
    lacking = []
    for row in hypothesis.rows:
        runs = [r for r in records if r["variant"] == row.variant.name]
        scores = [r["tasks"] for r in runs if set(known) <= set(r["tasks"])]
        if not scores:
            continue
        of_task = {t: 100 * statistics.mean(s[t]["value"] for s in scores) for t in known}
        less = statistics.mean(known.values()) - statistics.mean(of_task.values())
        if less > 0:
            better = [t for t in known if of_task[t] > known[t]]
            where = f"above it on {', '.join(better)}" if better else "on no task above it"
            lacking.append(f"`{row.variant.name}` by {less:.1f} points ({where})")
    if not lacking:
        return []
    return [
        f"**Below what needs no encoder, on the mean over tasks:** {', '.join(lacking)}. Encoders "
        "of this size, trained and fine-tuned in this way, are not worth their cost there."
    ]
