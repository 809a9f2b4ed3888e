"""`python -m study`: does what is not done of a study, and writes its page."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from study import jobs as plan
from study import worker_pool as together
from study.hypotheses import BY_LETTER, HYPOTHESES, ORDER
from study.presets import PRESETS


def main(args: list[str] | None = None) -> int:
    asked = _parser().parse_args(args)
    try:
        return _go(asked)
    except ValueError as e:
        print(f"study: {e}", file=sys.stderr)
        return 2
    except ChildProcessError as e:
        print(f"study: {e}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m study",
        description="Measures the papers' claims: `--scale cpu` takes up to 90 minutes on two "
        "cores and can be stopped at any point; the same command goes on.",
    )
    parser.add_argument("--scale", choices=sorted(PRESETS), default="cpu")
    parser.add_argument("--out", type=Path, default=None, help="default: runs/study-SCALE")
    parser.add_argument("--docs", type=Path, default=None, metavar="DIR",
                        help="where the page goes; default: OUT/page")  # fmt: skip
    parser.add_argument("--only", default="", metavar="h,i", help="claims, in the order of doing")
    parser.add_argument("--minutes", type=float, default=None, help="stop after so many")
    parser.add_argument(
        "--tasks",
        type=Path,
        default=None,
        metavar="DIR",
        help="a folder of labelled tasks; default: tasks made from the text",
    )
    parser.add_argument("--text", nargs="+", default=None,
                        help="default: data/sample.txt, too little for --scale gpu")  # fmt: skip
    parser.add_argument(
        "--lean", action="store_true", help="drop the checkpoints that no claim needs any more"
    )
    parser.add_argument(
        "--processes", type=int, default=None, metavar="N",
        help="that train, each with its share of the cores; default: on a CPU one for each core, "
        "at most 4, else 1",
    )  # fmt: skip
    parser.add_argument("--workers", type=int, default=2, help="that prepare corpora")
    parser.add_argument("--list", action="store_true", help="runs, FLOPs and a guess at the time")
    parser.add_argument(
        "--page", action="store_true", help="only write the page of --docs anew from its study.json"
    )
    return parser


def _go(asked: argparse.Namespace) -> int:
    scale = PRESETS[asked.scale]
    out = asked.out or Path("runs") / f"study-{scale.name}"
    docs = asked.docs or out / "page"
    if asked.page:
        return _write(docs, None)
    letters = [x for x in asked.only.split(",") if x] or (
        ORDER if scale.name == "gpu" else [c.letter for c in HYPOTHESES]
    )
    if unknown := [x for x in letters if x not in BY_LETTER]:
        raise ValueError(f"--only has {unknown[0]!r}: expected letters of {', '.join(BY_LETTER)}")
    works = plan.work([BY_LETTER[x] for x in letters], scale)
    processes = _processes(asked.processes, scale.name)
    if asked.list:
        print(plan.table(works, scale, processes))
        return 0
    if asked.minutes is not None and asked.minutes <= 0:
        raise ValueError(f"--minutes is {asked.minutes}: expected above 0")
    if asked.tasks is not None and not asked.tasks.is_dir():
        raise ValueError(
            f"--tasks {asked.tasks} is not a folder: expected one with a folder a task"
        )
    from study import results as collect
    from study.datasets import Datasets
    from study.runner import Study

    text = tuple(asked.text or scale.text)
    materials = Datasets(out / "data", scale, text, asked.tasks, asked.workers)
    study = Study(out, scale, materials, asked.lean)
    print(plan.table(works, scale, processes), file=sys.stderr)
    before = len(study.failures())
    stopped = study.run(works, asked.minutes, processes)
    if stopped:
        return 128 + stopped
    everything = plan.work(HYPOTHESES, scale)
    _write(docs, collect.collect(study, everything, processes))
    if stopped == 0:
        print("the minutes are over: the same command goes on")
    if failed := len(study.failures()) - before:
        print(f"study: {failed} steps failed: see {study.out / 'failed.jsonl'}", file=sys.stderr)
    return 1 if failed else 0


def _processes(asked: int | None, scale: str) -> int:
    if asked is not None:
        if asked < 1:
            raise ValueError(f"--processes is {asked}: expected 1 or more")
        return asked
    if scale == "gpu":
        return 1
    import jax

    cores = len(together.cores()) or os.cpu_count() or 1
    return min(4, cores) if jax.default_backend() == "cpu" else 1


def _write(docs: Path, store: dict | None) -> int:
    from study import page
    from study import plots as curves

    docs.mkdir(parents=True, exist_ok=True)
    file = docs / "study.json"
    if store is None:
        store = page.read(file)
    else:
        page.dump(store, file)
    for path in [*page.write(store, docs), *curves.write(store, docs / "curves")]:
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
