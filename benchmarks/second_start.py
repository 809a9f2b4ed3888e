"""Measure the time to the first step with an empty compilation cache and with a filled one.

    python benchmarks/second_start.py configs/bert_small.py CORPUS [--starts 3]

Each start is a new process: imports, corpus, init, compile, first step. Prints the median seconds
from the start of the process until the first step runs and until its loss is logged, and the
ratio of the second start to the first.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple


class StartTimes(NamedTuple):
    """Seconds since the start of the process."""

    running: float  # the first step is compiled or read from the cache
    logged: float  # its loss is in the log


def first_step(
    config: str, corpus: str, run: Path, cache: Path, overrides: list[str]
) -> StartTimes:
    command = [sys.executable, "-m", "bert_jax", "pretrain", config, "--data.path", corpus]
    command += ["--run.dir", str(run), "--run.steps", "2", "--run.log-every", "1", *overrides]
    env = {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(cache)}
    start, log = time.time(), run / "metrics.jsonl"
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(command, env=env, stdout=output, stderr=output)
        while not (log.exists() and log.stat().st_size):
            if process.poll() not in (None, 0):
                output.seek(0)
                raise SystemExit(output.read().decode())
            time.sleep(0.02)
        logged = time.time() - start
        process.wait()
    lines = map(json.loads, (run / "timing.jsonl").read_text().splitlines())
    compiled = next(line["at"] for line in lines if line["what"] == "compile")
    shutil.rmtree(run)
    return StartTimes(compiled - start, logged)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("config")
    parser.add_argument("corpus")
    parser.add_argument("--starts", type=int, default=3, help="starts of each kind, in turn")
    args, overrides = parser.parse_known_args()
    cold, warm = [], []
    with tempfile.TemporaryDirectory() as folder:
        for i in range(args.starts):
            cache = Path(folder) / f"cache{i}"
            for times in (cold, warm):
                run = Path(folder) / "run"
                times.append(first_step(args.config, args.corpus, run, cache, overrides))
    for i, what in enumerate(("running", "logged")):
        first, second = (statistics.median(t[i] for t in times) for times in (cold, warm))
        print(f"first step {what}: first start {first:.1f} s, second {second:.1f} s: "
              f"{second / first:.2f}")  # fmt: skip


if __name__ == "__main__":
    main()
