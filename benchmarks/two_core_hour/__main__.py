"""`python -m benchmarks.two_core_hour`: train and score an entry, or print the table."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import sys
from pathlib import Path
from typing import Any

from bert_jax.cli import logs
from bert_jax.utils import io, malloc

BUDGETS = {"hour": 60.0, "gpu-hour": 60.0}  # minutes
CORES = 2
TRAINED = "trained.json"  # of a run that ended: its steps, seconds and machine
PACKAGES = ("jax", "flax", "optax")


def main(argv: list[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    malloc.tune()
    logs.configure()
    try:
        return _print_table() if args.table else _run(args)
    except ValueError as e:
        print(f"two_core_hour: {e}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.two_core_hour",
        description="What a text encoder learns from scratch in an hour on two CPU cores. "
        "Example: python -m benchmarks.two_core_hour muon --out runs/hour/muon",
    )
    add = parser.add_argument
    add("entry", nargs="?", help="name of an entry, or a Python file that defines `entry`")
    add("--budget", default="hour", metavar="hour|gpu-hour|MINUTES",
        help="time of pre-training (default: hour, on two CPU cores)")  # fmt: skip
    add("--out", type=Path, metavar="DIR", help="new folder (default runs/two_core_hour/ENTRY)")
    add("--text", nargs="+", help="text files (default data/sample.txt, the contest's)")
    add("--tasks", type=Path, metavar="DIR",
        help="folder of labeled tasks (default: tasks made from the text)")  # fmt: skip
    add("--seeds", type=int, default=3, help="of fine-tuning (default 3)")
    add("--seed", type=int, default=0, help="of pre-training (default 0)")
    add("--no-random", action="store_true",
        help="do not fine-tune the same encoder from random weights")  # fmt: skip
    add("--table", action="store_true", help="print the table of entries, and exit")
    return parser


def budget_minutes(budget: str) -> float:
    """ValueError: neither a name nor a number above 0."""
    if budget in BUDGETS:
        return BUDGETS[budget]
    try:
        minutes = float(budget)
    except ValueError:
        minutes = 0.0
    if not 0 < minutes < 10_000:
        expected = f"{', '.join(BUDGETS)} or a number of minutes above 0"
        raise ValueError(f"--budget is {budget!r}: expected {expected}")
    return minutes


def _print_table() -> int:
    from benchmarks.two_core_hour.table import read_results, table

    print(table(read_results()))
    return 0


def _run(args: argparse.Namespace) -> int:
    from benchmarks.two_core_hour import entry as entries

    minutes = budget_minutes(args.budget)
    if args.entry is None:
        raise ValueError(f"no entry: expected {', '.join(entries.names())}, or a Python file")
    if args.seeds < 1:
        raise ValueError(f"--seeds is {args.seeds}: expected 1 or more")
    if args.tasks is not None and not args.tasks.is_dir():
        raise ValueError(f"--tasks {args.tasks} is not a folder: expected a folder of tasks")
    entry, name = entries.load(args.entry), Path(args.entry).stem
    out = args.out or Path("runs/two_core_hour") / name
    if (out / "run").exists() and not (out / TRAINED).exists():
        raise ValueError(
            f"{out} has a run that did not end: choose another --out, an entry is trained in one go"
        )
    machine = _use_machine(args.budget)
    result = _train_and_score(args, entry, out, minutes, machine)
    file = out / f"{name}.json"
    io.write_text(file, json.dumps(result, indent=2) + "\n")
    from benchmarks.two_core_hour.table import HEAD, row

    for line in (HEAD, ["---"] * len(HEAD), row(name, entry.title, result)):
        print(f"| {' | '.join(line)} |")
    print(file)
    return 0


def _use_machine(budget: str) -> dict[str, Any]:
    """Take two cores, or check that there is an accelerator. Must run before JAX starts."""
    if budget != "gpu-hour" and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    import jax

    device = jax.devices()[0]
    if (budget == "gpu-hour") == (device.platform == "cpu"):
        expected = "an accelerator" if budget == "gpu-hour" else "a CPU (JAX_PLATFORMS=cpu)"
        raise ValueError(f"--budget {budget} needs {expected}, and JAX uses {device.device_kind}")
    on_cpu = device.platform == "cpu"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else CORES
    noun = "core" if cores == 1 else "cores"
    machine = f"{cores} {noun} ({platform.machine()})" if on_cpu else device.device_kind
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    return {"machine": machine, "python": platform.python_version(), "versions": versions}


def _train_and_score(
    args: argparse.Namespace, entry: Any, out: Path, minutes: float, machine: dict[str, Any]
) -> dict[str, Any]:
    from benchmarks.two_core_hour import data as contest
    from benchmarks.two_core_hour import folder, score, train

    text = tuple(args.text or (contest.TEXT,))
    data = contest.ContestData(out / "data", text, args.tasks)
    digest = contest.sha256(text)
    if args.text is None and digest != contest.TEXT_SHA256:
        raise ValueError(f"{contest.TEXT} is not the contest's text (sha256 {digest}): restore it")
    values = folder.made_from(entry, minutes, args.seed, args.seeds, digest, args.tasks)
    folder.claim(out, values)
    result = {"title": entry.title} | {k: v for k, v in values.items() if k != "entry"}
    data.split()
    path = data.corpus(entry)
    result["task_rows"] = {name: data.test_rows(name) for name in data.labeled.task_names()}
    trained = out / TRAINED
    if trained.exists():
        result |= json.loads(trained.read_text(encoding="utf-8"))
        print(f"{out} is trained: what is missing of its scores is made", file=sys.stderr)
    else:
        of_run = machine | train.train(entry, path, out / "run", 60 * minutes, args.seed)
        io.write_text(trained, json.dumps(of_run) + "\n")
        result |= of_run
    result |= score.score_text(out / "run", data)
    result["without_encoder"] = score.without_encoder(data)
    result["tasks"] = score.score_tasks(out / "run", data, out / "tasks", args.seeds)
    if not args.no_random:
        if not (out / "random_tasks").exists():
            train.random_weights(entry, path, out / "random", args.seed)
        tasks = score.score_tasks(out / "random", data, out / "random_tasks", args.seeds)
        result["random_tasks"] = tasks
    return result


if __name__ == "__main__":
    sys.exit(main())
