"""How soon a run makes its first step: with an empty compile cache, and with what that start left.

    python benchmarks/second_start.py configs/bert_small.py CORPUS [--starts 3]

Each start is a process of its own: imports, corpus, init, compiling, the first step. Times are
from its begin until the first step is under way, and until its loss is in the log, which takes
the step itself too; the ratio is what counts.
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


class Start(NamedTuple):
    """Seconds from the begin of the process."""

    reached: float  # the first step is compiled, or read from the cache, and under way
    logged: float  # its loss is in the log


def first_step(config: str, corpus: str, run: Path, cache: Path, more: list[str]) -> Start:
    command = [sys.executable, "-m", "bert_jax", "pretrain", config, "--data.path", corpus]
    command += ["--run.dir", str(run), "--run.steps", "2", "--run.log-every", "1", *more]
    env = {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(cache)}
    begin, log = time.time(), run / "metrics.jsonl"
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(command, env=env, stdout=said, stderr=said)
        while not (log.exists() and log.stat().st_size):
            if process.poll() not in (None, 0):
                said.seek(0)
                raise SystemExit(said.read().decode())
            time.sleep(0.02)
        logged = time.time() - begin
        process.wait()
    timed = map(json.loads, (run / "timing.jsonl").read_text().splitlines())
    compiled = next(line["at"] for line in timed if line["what"] == "compile")
    shutil.rmtree(run)
    return Start(compiled - begin, logged)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("config")
    parser.add_argument("corpus")
    parser.add_argument("--starts", type=int, default=3, help="of each kind, in turns")
    args, more = parser.parse_known_args()
    cold, warm = [], []
    with tempfile.TemporaryDirectory() as folder:
        for i in range(args.starts):
            cache = Path(folder) / f"cache{i}"
            for times in (cold, warm):
                run = Path(folder) / "run"
                times.append(first_step(args.config, args.corpus, run, cache, more))
    for i, what in enumerate(("under way", "logged")):
        first, second = (statistics.median(t[i] for t in times) for times in (cold, warm))
        print(f"first step {what}: first start {first:.1f} s, second {second:.1f} s: "
              f"{second / first:.2f}")  # fmt: skip


if __name__ == "__main__":
    main()
