"""`python -m study`: run what is missing in a study, and write its page."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from bert_jax.cli import logs
from bert_jax.utils import malloc
from study import worker_pool
from study.hypotheses import hypotheses_at
from study.jobs import format_jobs, list_jobs
from study.presets import PRESETS, Preset, hour_preset


def main(argv: list[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    malloc.tune()
    logs.configure()
    try:
        return _run(args)
    except ValueError as e:
        print(f"study: {e}", file=sys.stderr)
        return 2
    except ChildProcessError as e:
        print(f"study: {e}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m study",
        description="Measure the papers' claims. `--scale cpu` takes up to 60 minutes on two "
        "cores; `--scale hour` gives each run up to an hour. A stopped study resumes with the same "
        "command. Example: python -m study --scale hour --arm-minutes 20 --only h "
        "--text 'text/*.txt' --tasks tasks --state state",
    )
    add = parser.add_argument
    add("--scale", choices=sorted(PRESETS), default="cpu", help="preset of sizes (default cpu)")
    add("--out", type=Path, help="folder of the study (default runs/study-SCALE)")
    add("--state", type=Path, metavar="DIR",
        help="folder of results and last checkpoints, to be kept and carried to other machines "
        "(default OUT)")  # fmt: skip
    add("--arm-minutes", type=float, metavar="N",
        help="with --scale hour: minutes of two cores per run, in FLOPs (default 60)")  # fmt: skip
    add("--docs", type=Path, metavar="DIR", help="folder of the page (default OUT/page)")
    add("--only", default="", metavar="h,i", help="hypotheses to run, in this order")
    add("--minutes", type=float, help="time limit")
    add("--tasks", type=Path, metavar="DIR",
        help="folder of labeled tasks (default: tasks made from the text)")  # fmt: skip
    add("--text", nargs="+",
        help="text files (default data/sample.txt; --scale hour needs others)")  # fmt: skip
    add("--prune-checkpoints", action="store_true",
        help="delete checkpoints that no hypothesis still needs")  # fmt: skip
    add("--processes", type=int, metavar="N",
        help="runs at a time, which share the cores (default: on a CPU one per core, at most 4; "
        "else 1)")  # fmt: skip
    add("--workers", type=int, default=2, help="processes that prepare corpora (default 2)")
    add("--list", action="store_true", help="print runs, FLOPs and estimated time, and exit")
    add("--page", action="store_true", help="only rebuild the page from the study.json in --docs")
    return parser


def _run(args: argparse.Namespace) -> int:
    preset = _preset(args)
    out = args.out or Path("runs") / f"study-{preset.name}"
    docs = args.docs or out / "page"
    if args.page:
        return _write_docs(docs, None)
    letters = [x for x in args.only.split(",") if x] or None
    jobs = list_jobs(hypotheses_at(preset.name, letters), preset)
    processes = _processes(args.processes, preset.name)
    if args.list:
        print(format_jobs(jobs, preset, processes))
        return 0
    if args.minutes is not None and args.minutes <= 0:
        raise ValueError(f"--minutes is {args.minutes}: expected above 0")
    if args.tasks is not None and not args.tasks.is_dir():
        raise ValueError(f"--tasks {args.tasks} is not a folder: expected a folder of tasks")
    from study.datasets import Datasets
    from study.results import collect_results
    from study.runner import Study

    text = tuple(args.text or preset.text)
    if not text:
        raise ValueError(
            f"--scale {preset.name} needs --text FILE...: tens of millions of words, which the "
            "repository does not ship"
        )
    datasets = Datasets(out / "data", preset, text, args.tasks, args.workers)
    study = Study(out, preset, datasets, args.prune_checkpoints, args.state)
    print(format_jobs(jobs, preset, processes), file=sys.stderr)
    failures_before = len(study.failures())
    stopped = study.run(jobs, args.minutes, processes)
    if stopped:
        return 128 + stopped
    all_jobs = list_jobs(hypotheses_at(preset.name), preset)
    _write_docs(docs, collect_results(study, all_jobs, processes))
    if stopped == 0:
        print("the time limit ended: run the same command to resume")
    if failed := len(study.failures()) - failures_before:
        print(
            f"study: {failed} steps failed: see {study.results_dir / 'failed.jsonl'}",
            file=sys.stderr,
        )
    return 1 if failed else 0


def _preset(args: argparse.Namespace) -> Preset:
    if args.arm_minutes is None:
        return PRESETS[args.scale]
    if args.scale != "hour":
        raise ValueError(f"--arm-minutes needs --scale hour, and --scale is {args.scale}")
    return hour_preset(args.arm_minutes)


def _processes(processes: int | None, preset: str) -> int:
    if processes is not None:
        if processes < 1:
            raise ValueError(f"--processes is {processes}: expected 1 or more")
        return processes
    if preset == "gpu":
        return 1
    import jax

    cores = len(worker_pool.available_cores()) or os.cpu_count() or 1
    return min(4, cores) if jax.default_backend() == "cpu" else 1


def _write_docs(docs: Path, results: dict | None) -> int:
    """Write the page; None: from the stored results."""
    from study.page import write_page
    from study.results import read_results, write_results

    docs.mkdir(parents=True, exist_ok=True)
    file = docs / "study.json"
    if results is None:
        results = read_results(file)
    else:
        write_results(results, file)
    for path in write_page(results, docs):
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
