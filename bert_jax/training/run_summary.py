"""What a finished run prints: its final metrics beside their baselines, and where the time went."""

from __future__ import annotations

import math
from pathlib import Path

from bert_jax.tasks import results
from bert_jax.utils import metrics_log, remote

MASKED_NOTHING = "no token was masked in the evaluated rows, so there is no loss at [MASK]"


def summary(run: str | Path) -> str:
    """The final metrics of a run, in a few lines."""
    folder = remote.local_cache_path(str(run))
    task_results = results.read_results(folder)
    if task_results is not None:
        return f"{results.render_results(task_results)}\nrun folder: {run}"
    rows = metrics_log.read_metrics(folder)
    last = next((r for r in reversed(rows) if "eval_loss" in r), None)
    if last is None:
        return f"run folder: {run}"
    summary_lines = [f"after {last['step']} steps, on the validation text:"]
    if {"eval_unigram_loss", "eval_mask_loss", "eval_mask_accuracy"} <= last.keys():
        summary_lines.append(
            f"  at [MASK]: loss {last['eval_mask_loss']:.3f} nat, accuracy "
            f"{last['eval_mask_accuracy']:.1%}; unigram baseline "
            f"{last['eval_unigram_loss']:.3f} nat"
        )
    elif masked_nothing(last):
        summary_lines.append(f"  {MASKED_NOTHING}")
    if {"eval_pair_accuracy", "eval_pair_baseline_loss", "eval_pair_loss"} <= last.keys():
        summary_lines.append(
            f"  sentence pairs: loss {last['eval_pair_loss']:.3f} nat, balanced accuracy "
            f"{last['eval_pair_accuracy']:.1%}; baseline of label shares "
            f"{last['eval_pair_baseline_loss']:.3f} nat, chance 50.0%"
        )
    if {"eval_sbo_mask_loss", "eval_sbo_unigram_loss"} <= last.keys():
        summary_lines.append(
            f"  span boundary at [MASK]: loss {last['eval_sbo_mask_loss']:.3f} nat; unigram "
            f"baseline {last['eval_sbo_unigram_loss']:.3f} nat"
        )
    if {"eval_rtd_recall", "eval_rtd_auc"} <= last.keys():
        precision = last.get("eval_rtd_precision")
        share = "no token flagged" if precision is None else f"precision {precision:.1%}"
        summary_lines.append(
            f"  replaced tokens: {last['eval_rtd_recall']:.1%} found, {share}, "
            f"AUC {last['eval_rtd_auc']:.3f} (chance 0.500)"
        )
    if {"eval_task_loss", "eval_task_accuracy"} <= last.keys():
        among = last.get("eval_candidates")  # runs of before did not count them
        chance = f" (chance among {among:.1f} texts {1 / among:.1%})" if among else ""
        summary_lines.append(
            f"  pairs of texts: loss {last['eval_task_loss']:.3f} nat, the right one first for "
            f"{last['eval_task_accuracy']:.1%}{chance}"
        )
    return "\n".join([*summary_lines, *_goodput(folder), f"run folder: {run}"])


def masked_nothing(last: dict[str, float]) -> bool:
    """Whether the last evaluation was of masked tokens, and had none."""
    if "eval_loss" not in last or "eval_mask_loss" in last:
        return False
    return "eval_mlm_loss" in last or math.isnan(last["eval_loss"])


def _goodput(run: Path) -> list[str]:
    """A line about where the time of a run went."""
    spent = metrics_log.goodput(run)
    total = sum(spent.values())
    if not total:
        return []
    others = sorted((-seconds, phase) for phase, seconds in spent.items() if phase != "steps")
    listed = ", ".join(f"{phase} {-seconds:.1f}" for seconds, phase in others if seconds)
    return [f"  time: {spent['steps'] / total:.1%} of {total:.1f} s in steps; {listed}"]
