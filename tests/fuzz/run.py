"""Every target until so many inputs in all: works or a message, never a traceback, a hang, or
more memory than a bound.

    python -m tests.fuzz.run [--inputs 100000] [--seed 0] [--targets a,b] [--keep FOLDER]

Ends with status 1 if an input broke the contract; it then lies in the folder given, to become a
file in tests/fuzz/cases.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from .targets import TARGETS

ROOT = Path(__file__).parents[2]
PACKED = ("gz", "bz2", "xz", "zst")  # whose seeds are not packed yet: nothing for atheris
WORTH = 3  # of the inputs, those of hypothesis are so many to one of atheris


class Job(NamedTuple):
    target: str
    engine: str
    inputs: int


class FuzzResult(NamedTuple):
    inputs: int
    slowest_ms: float
    peak_mb: float
    broken: dict[str, dict[str, Any]]


def plan(names: list[str], inputs: int) -> list[Job]:
    """The inputs shared out, dear targets getting fewer."""
    engines = {"hypothesis": 1.0}
    if importlib.util.find_spec("atheris"):
        engines["atheris"] = 1 / WORTH
    shares = {
        (name, engine): weight / TARGETS[name].cost
        for name in names
        for engine, weight in engines.items()
        if engine == "hypothesis" or name not in (*PACKED, "report")
    }
    total = sum(shares.values())
    return [Job(*k, -(-int(inputs * share) // int(total)) + 20) for k, share in shares.items()]


def start(engine: str, jobs: list[Job], seed: int, folder: Path) -> subprocess.Popen[bytes]:
    """A process that does the jobs of an engine one after another."""
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    env = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "TOKENIZERS_PARALLELISM": "false",
        "MALLOC_ARENA_MAX": "2",
        "PYTHONPATH": os.pathsep.join(p for p in paths if p),
    }
    module = ["-W", "ignore", "-m", "tests.fuzz.campaign", engine, str(seed), str(folder)]
    listed = [f"{job.target}:{job.inputs}" for job in jobs if job.engine == engine]
    return subprocess.Popen([sys.executable, *module, *listed], env=env, stdout=subprocess.DEVNULL)


def read_reports(job: Job, folder: Path) -> FuzzResult:
    """The reports of a job, added up."""
    total = FuzzResult(0, 0.0, 0.0, {})
    for report in sorted((folder / f"{job.target}-{job.engine}").glob("*/report.json")):
        result = json.loads(report.read_text())
        for one in result["broken"].values():
            one["file"] = str(report.parent / one["file"])
        total = _joined(total, FuzzResult(**result))
    return total


def _joined(a: FuzzResult, b: FuzzResult) -> FuzzResult:
    return FuzzResult(
        a.inputs + b.inputs,
        max(a.slowest_ms, b.slowest_ms),
        max(a.peak_mb, b.peak_mb),
        a.broken | b.broken,
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--inputs", type=int, default=100_000, help="in all, at least")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--targets", default=",".join(TARGETS), help="names with commas between")
    parser.add_argument("--keep", type=Path, help="an empty folder for what is found")
    args = parser.parse_args()
    keep = args.keep or Path(tempfile.mkdtemp(prefix="bert-jax-fuzz-"))
    jobs = plan(args.targets.split(","), args.inputs)
    engines = dict.fromkeys(job.engine for job in jobs)
    running = [start(engine, jobs, args.seed, keep) for engine in engines]
    ended = [process.wait() for process in running]
    print(
        f"{'target':16}{'engine':12}{'inputs':>8}{'failures':>10}{'slowest ms':>12}{'peak MB':>9}"
    )
    total, failed = 0, []
    for job in jobs:
        result = read_reports(job, keep)
        print(
            f"{job.target:16}{job.engine:12}{result.inputs:8}{len(result.broken):10}"
            f"{result.slowest_ms:12.0f}{result.peak_mb:9.0f}"
        )
        total += result.inputs
        failed += [(job.target, kind, one) for kind, one in result.broken.items()]
    print(f"{'all':28}{total:8}{len(failed):10}")
    for target, kind, one in failed:
        print(f"\n{target}: {kind}\n{one['times']} times, as with {one['file']}\n{one['trace']}")
    whole = not failed and not any(ended) and total >= args.inputs
    if whole and args.keep is None:
        shutil.rmtree(keep)
    return 0 if whole else 1


if __name__ == "__main__":
    sys.exit(main())
