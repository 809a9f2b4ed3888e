"""An encoder's fine-tuned tasks, beside the same encoder with random weights and a bag of words.

    python -m benchmarks.encoder_tasks TRAINED RANDOM --data TASKS

TRAINED and RANDOM are folders of runs of `bert-jax finetune` on the tasks of
finetune_recipes.TASKS, of any names, with several peak rates and seeds. Each side and task gets the
rate that is best on dev with seed 0. The first table has the medians on test (`qa`: on dev) and the
differences of the means to random weights and to the bag of words of `study.task_baselines`, over
the seeds that both sides have, with 95 % intervals from a paired bootstrap over rows and seeds. The
second has all rates that were tried.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.finetune_recipes import SCORES, TASKS, compare, metric, row_scores
from bert_jax import tasks
from bert_jax.config import read_config
from study.datasets import read_rows
from study.task_baselines import predict_baseline

Runs = dict[str, dict[float, dict[str, dict[str, Any]]]]  # task -> rate -> seed -> {"dev", "rows"}
SEED = "0"  # of the runs that choose the rate


def read_runs(folder: Path, data: Path) -> Runs:
    """The finished runs of a folder. ValueError: there is none, or one is of another task."""
    runs: Runs = defaultdict(lambda: defaultdict(dict))
    for file in sorted(folder.glob("*/results.json")):
        run = file.parent
        config = read_config(run / "config.json")
        task = Path(str(config.data.path)).name
        if task not in TASKS:
            raise ValueError(f"{run} is of {task!r}: expected runs of {', '.join(TASKS)}")
        results = json.loads(file.read_text(encoding="utf-8"))
        dev = results["dev"][results["metric"]] / (100 if task == "qa" else 1)
        rows = row_scores(TASKS[task], data / task, run)
        of_rate, seed = runs[task][config.optim.peak_lr], str(config.run.seed)
        if seed in of_rate:
            raise ValueError(f"{run} repeats a task, a rate and a seed: expected one run of each")
        of_rate[seed] = {"dev": dev, "rows": rows}
    if not runs:
        raise ValueError(f"{folder} has no finished run: expected folders with results.json")
    return runs


def best_rate(rates: Mapping[float, Mapping[str, Any]]) -> float:
    """The rate that is best on dev with seed 0. ValueError: no run has this seed."""
    scores = {rate: seeds[SEED]["dev"] for rate, seeds in rates.items() if SEED in seeds}
    if not scores:
        raise ValueError(f"no run has seed {SEED}, which chooses the rate: train one")
    return max(scores, key=lambda rate: scores[rate])


def baseline_rows(task: str, data: Path) -> list[Any] | None:
    """The scores of the test rows without an encoder; None: there is no such baseline."""
    if task == "qa":
        return None
    train, test = (list(read_rows(data / task / f"{part}.jsonl")) for part in ("train", "test"))
    predicted = predict_baseline(train, test)
    if predicted is None:
        return None
    if TASKS[task] != "tagging":  # a label may be a number in the file, and is a word in examples
        predicted = [str(label) for label in predicted]
    field = "tags" if TASKS[task] == "tagging" else "label"
    examples = tasks.read_dataset(TASKS[task], str(data / task)).splits["test"]
    score = SCORES[TASKS[task]]
    return [score(e, {field: p}) for e, p in zip(examples, predicted, strict=True)]


def scores_table(trained: Runs, random: Runs, baselines: Mapping[str, list[Any] | None]) -> str:
    """The first table, in Markdown."""
    lines = [
        "| | trained | rate | random weights | rate | trained - random | bag of words "
        "| trained - bag |",
        "|---" * 8 + "|",
    ]
    for task in (t for t in TASKS if t in trained and t in random):
        rates = best_rate(trained[task]), best_rate(random[task])
        sides = [
            {task: side[task][rate]} for side, rate in zip((trained, random), rates, strict=True)
        ]
        cells = [_median(task, side[task]) for side in sides]
        rows = baselines.get(task)
        bag = {task: {seed: {"rows": rows} for seed in sides[0][task]}}
        without = "" if rows is None else _shown(metric(TASKS[task], np.array(rows, float)))
        beside = "" if rows is None else _difference(compare(bag, sides[0])[task])
        lines.append(
            f"| `{task}` | {cells[0]} | {rates[0]:g} | {cells[1]} | {rates[1]:g} "
            f"| {_difference(compare(sides[1], sides[0])[task])} | {without} | {beside} |"
        )
    return "\n".join(lines)


def rates_table(trained: Runs, random: Runs) -> str:
    """Dev scores with seed 0 at every rate that was tried, in Markdown."""
    rates = sorted({rate for runs in (trained, random) for task in runs.values() for rate in task})
    lines = [
        f"| dev, seed 0 | | {' | '.join(f'{r:g}' for r in rates)} |",
        "|---" * (len(rates) + 2) + "|",
    ]
    for task in TASKS:
        for name, runs in (("trained", trained), ("random weights", random)):
            seeds = [runs.get(task, {}).get(rate, {}) for rate in rates]
            cells = [_shown(s[SEED]["dev"]) if SEED in s else "" for s in seeds]
            lines += [f"| `{task}` | {name} | {' | '.join(cells)} |"] if any(cells) else []
    return "\n".join(lines)


def _median(task: str, seeds: Mapping[str, Any]) -> str:
    values = [metric(TASKS[task], np.array(s["rows"], float)) for s in seeds.values()]
    spread = f" ± {_shown(statistics.stdev(values))}" if len(values) > 1 else ""
    return _shown(statistics.median(values)) + spread


def _difference(judged: Mapping[str, Any]) -> str:
    low, high = (_signed(value) for value in judged["interval"])
    return f"{_signed(judged['difference'])} ({low} to {high})"


def _shown(value: float) -> str:
    return f"{value:.3f}".removeprefix("0")


def _signed(value: float) -> str:
    return ("-" if value < 0 else "+") + _shown(abs(value))


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("trained", type=Path, help="folder of runs from the trained encoder")
    parser.add_argument("random", type=Path, help="folder of runs from random weights")
    parser.add_argument("--data", type=Path, required=True, help="folder of task folders")
    args = parser.parse_args(argv)
    try:
        trained, random = (read_runs(folder, args.data) for folder in (args.trained, args.random))
        baselines = {task: baseline_rows(task, args.data) for task in trained}
        print(scores_table(trained, random, baselines))
        print(f"\n{rates_table(trained, random)}")
    except ValueError as e:
        parser.error(str(e))


if __name__ == "__main__":
    main()
