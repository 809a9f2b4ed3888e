"""Compare recipes of fine-tuning on six tasks, row by row.

    finetune_recipes.py run published --seed 0 --init MODEL --data TASKS --runs DIR
    finetune_recipes.py judge published other

`run` fine-tunes with a recipe on the tasks (`--tasks` some of them) and adds the scores on dev, and
that of each test row, to docs/finetune_recipes.json. What is there is not trained again. TASKS has
one folder per task, in the formats of docs/finetuning.md.

`judge` compares two recipes over the seeds that both have: the medians on dev, and on the test rows
the difference with its interval from a paired bootstrap, which draws rows and seeds, the same for
both recipes. `qa` has no test set: its dev rows are judged, and no recipe may be chosen by them.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bert_jax import tasks
from bert_jax.tasks.metrics import correlations
from bert_jax.tasks.squad_metrics import squad_scores

ROOT = Path(__file__).resolve().parent.parent
STATE = ROOT / "docs" / "finetune_recipes.json"
TASKS = {
    **dict.fromkeys(("question_type", "sentiment", "entailment"), "classification"),
    "tweet_score": "regression",
    "ner": "tagging",
    "qa": "qa",
}
LENGTH = {"qa": ["--data.length", "256"]}  # of rows: part of the task, not of a recipe
EPOCHS = {  # where they are not those of configs/finetune.py
    "sentiment": ["--run.epochs", "3"],
    "ner": ["--run.epochs", "3"],
    "qa": ["--run.epochs", "2"],
}
TWICE = dict(question_type=10, entailment=10, tweet_score=10, sentiment=6, ner=6, qa=4)
TWICE_THE_EPOCHS = {task: ["--run.epochs", str(epochs)] for task, epochs in TWICE.items()}
RATE = ["--optim.peak-lr", "2e-4"]
STEPS = ["--run.steps", "1000", "--run.eval-every", "200", "--data.group-by-length"]
EPOCHS_3 = ["--run.epochs", "3", "--data.group-by-length"]
MEAN = ["--objective.head", "prediction", "--objective.pooling", "mean"]
# Flags of each recipe, for all tasks ("all") and for some. `published`: docs/finetuning.md.
RECIPES: dict[str, dict[str, list[str]]] = {
    "plain": {},  # configs/finetune.py for every task
    "published": EPOCHS | {"ner": [*EPOCHS["ner"], *RATE]},
    "layer_decay": {"all": [*RATE, "--optim.layer-decay", "0.9"]} | EPOCHS,
    "double_rate": {"all": RATE} | EPOCHS,
    "mean_pooling": {"all": [*RATE, *MEAN]} | EPOCHS,
    "longer": {"all": RATE} | TWICE_THE_EPOCHS,
    # One set of flags for every task: the same number of steps, however many rows it has.
    "same_steps": {"all": [*STEPS, *RATE, "--optim.layer-decay", "0.9"]},
    "same_steps_fast": {"all": [*STEPS, "--optim.peak-lr", "3e-4", "--optim.layer-decay", "0.85"]},
    "three_epochs": {"all": [*EPOCHS_3, *RATE, "--optim.layer-decay", "0.9"]},
    "mean_longer": {"all": [*RATE, *MEAN]} | TWICE_THE_EPOCHS,
}
SAMPLES = 2000  # of the bootstrap

Rows = list[Any]
State = dict[str, dict[str, dict[str, Any]]]  # recipe -> task -> seed -> {"dev", "rows"}


# ---- one score per row, and the metric of some rows


def row_scores(task_type: str, folder: Path, run: Path) -> Rows:
    """What the metric of the test rows is made of: per row whether it is right (classification),
    [label, prediction] (regression), the numbers of entities that are right, predicted and true
    (tagging), or the F1 (qa, on dev)."""
    split = "dev" if task_type == "qa" else "test"
    dataset = tasks.read_dataset(task_type, str(folder))
    lines = (run / f"predictions_{split}.jsonl").read_text(encoding="utf-8").splitlines()
    pairs = zip(dataset.splits[split], map(json.loads, lines), strict=True)
    return [SCORES[task_type](example, predicted) for example, predicted in pairs]


def count_entities(example: Any, predicted: Any) -> list[int]:
    from seqeval.metrics.sequence_labeling import get_entities

    gold, found = (set(get_entities(list(tags))) for tags in (example.tags, predicted["tags"]))
    return [len(gold & found), len(found), len(gold)]


def answer_f1(example: Any, predicted: Any) -> float:
    return round(squad_scores([example], [predicted["answer"]])["f1"] / 100, 4)


SCORES: dict[str, Callable[[Any, Any], Any]] = {
    "classification": lambda example, predicted: int(str(example.label) == predicted["label"]),
    "regression": lambda example, predicted: [example.label, round(predicted["label"], 4)],
    "tagging": count_entities,
    "qa": answer_f1,
}


def metric(task_type: str, rows: np.ndarray) -> float:
    """Accuracy, Pearson correlation, F1 of entities, or mean F1, from 0 to 1."""
    if task_type == "regression":
        return correlations(rows)["pearson"]
    if task_type == "tagging":
        right, predicted, true = rows.sum(0)
        return float(2 * right / max(predicted + true, 1))
    return float(rows.mean())


# ---- training


def train(recipe: str, task: str, seed: int, args: argparse.Namespace) -> dict[str, Any]:
    """Fine-tune, or read the run if it is finished: the score on dev, and that of each row."""
    run, flags = args.runs / f"{recipe}-{task}-{seed}", RECIPES[recipe]
    if not (run / "results.json").exists():
        command = [sys.executable, "-m", "bert_jax", "finetune", str(ROOT / "configs/finetune.py")]
        command += ["--init", args.init, "--task", TASKS[task], "--data", str(args.data / task)]
        command += ["--run.dir", str(run), "--run.seed", str(seed), *LENGTH.get(task, [])]
        subprocess.run([*command, *flags.get("all", []), *flags.get(task, [])], check=True)
    results = json.loads((run / "results.json").read_text())
    scale, judged = (100, "dev") if task == "qa" else (1, "test")
    rows = row_scores(TASKS[task], args.data / task, run)
    expected = results[judged][results["metric"]] / scale
    if abs(metric(TASKS[task], np.array(rows, float)) - expected) > 1e-3:
        sys.exit(f"{run}: the rows of predictions_{judged}.jsonl do not give {expected:.4f}")
    return {"dev": round(results["dev"][results["metric"]] / scale, 5), "rows": rows}


def read_state(path: Path) -> State:
    return json.loads(path.read_text()) if path.exists() else {}


# ---- judgement


def compare(a: Mapping[str, Any], b: Mapping[str, Any], samples: int = SAMPLES) -> dict[str, Any]:
    """Recipe `b` against `a` (task -> seed -> scores): per task, and for `mean` over the tasks that
    both have, the mean over the seeds of each on the test rows, the difference and its 95 %
    interval, and the number of seeds."""
    rng = np.random.default_rng(0)
    draws: list[np.ndarray] = []
    table: dict[str, Any] = {}
    for task in (t for t in TASKS if t in a and t in b):
        seeds = sorted(a[task].keys() & b[task].keys())
        if not seeds:
            continue
        sides = [np.array([side[task][s]["rows"] for s in seeds], float) for side in (a, b)]
        n, k = sides[0].shape[1], len(seeds)
        means = partial(_means, TASKS[task], sides)
        drawn = [means(rng.integers(0, k, k), rng.integers(0, n, n)) for _ in range(samples)]
        draws.append(np.array(drawn))
        whole = means(np.arange(k), np.arange(n))
        table[task] = _judged(whole, draws[-1]) | {"seeds": k, "rows": n}
    if draws:
        whole = np.mean([[row["a"], row["b"]] for row in table.values()], axis=0)
        table["mean"] = _judged(whole, np.mean(draws, axis=0))
    return table


def _means(
    task_type: str, sides: Sequence[np.ndarray], seeds: np.ndarray, rows: np.ndarray
) -> np.ndarray:
    """The mean over some seeds of the metric of some rows, for each side [seeds, rows, ...]."""
    return np.array([np.mean([metric(task_type, side[s][rows]) for s in seeds]) for side in sides])


def _judged(means: np.ndarray, drawn: np.ndarray) -> dict[str, Any]:
    low, high = np.quantile(drawn[:, 1] - drawn[:, 0], [0.025, 0.975])
    return {
        "a": float(means[0]),
        "b": float(means[1]),
        "difference": float(means[1] - means[0]),
        "interval": [float(low), float(high)],
    }


def format_comparison(a: str, b: str, table: Mapping[str, Any], state: State) -> str:
    """The comparison in Markdown."""
    lines = [f"| | dev: {a} | {b} | test: {a} | {b} | difference | seeds |", "|---" * 7 + "|"]
    for task, row in table.items():
        dev = [_median_on_dev(state, name, task, (a, b)) for name in (a, b)]
        low, high = row["interval"]
        lines.append(
            f"| {task} | {dev[0]} | {dev[1]} | {row['a']:.4f} | {row['b']:.4f} "
            f"| {row['difference']:+.4f} ({low:+.4f} to {high:+.4f}) | {row.get('seeds', '')} |"
        )
    return "\n".join(lines)


def _median_on_dev(state: State, name: str, task: str, both: Sequence[str]) -> str:
    """Over the seeds that both recipes have; empty for the mean over tasks."""
    seeds = set.intersection(*(set(state[recipe].get(task, {})) for recipe in both))
    return f"{statistics.median(state[name][task][s]['dev'] for s in seeds):.4f}" if seeds else ""


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--state", type=Path, default=STATE, help="the JSON file of all scores")
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run")
    run.add_argument("recipe", choices=sorted(RECIPES))
    run.add_argument("--tasks", nargs="+", choices=list(TASKS), default=list(TASKS))
    run.add_argument("--seed", type=int, required=True)
    run.add_argument("--init", required=True)
    run.add_argument("--data", type=Path, required=True, help="folder of task folders")
    run.add_argument("--runs", type=Path, required=True, help="folder for the runs")
    judge = commands.add_parser("judge")
    judge.add_argument("a")
    judge.add_argument("b")
    args = parser.parse_args(argv)
    if args.command == "judge":
        state = read_state(args.state)
        table = compare(state[args.a], state[args.b])
        print(format_comparison(args.a, args.b, table, state))
        return
    for task in args.tasks:
        known = read_state(args.state).get(args.recipe, {}).get(task, {})
        if str(args.seed) in known:
            continue
        scores = train(args.recipe, task, args.seed, args)
        state = read_state(args.state)  # another process may have added to it meanwhile
        state.setdefault(args.recipe, {}).setdefault(task, {})[str(args.seed)] = scores
        args.state.write_text(json.dumps(state, separators=(",", ":")) + "\n")
        value = metric(TASKS[task], np.array(scores["rows"], float))
        print(f"{args.recipe} {task} seed {args.seed}: dev {scores['dev']:.4f}, test {value:.4f}")


if __name__ == "__main__":
    main()
