"""Measure what a corpus of 10^9 rows costs its reader, with an index that has no data.

    python benchmarks/huge_corpus.py --rows 1000000 1000000000

Prints for each size, measured in a process of its own: the seconds to look up the batch of step
10^6, the seconds from the process's start to the first batch of a run that resumes at that step
(imports included), and the resident memory after 10 and after 1,000 batches.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
STEP, BATCH, LENGTH = 10**6, 256, 128


class RowIndex:
    """Rows that are computed from their number."""

    def __init__(self, rows: int):
        self.rows = rows

    def __len__(self) -> int:
        return self.rows

    def __getitems__(self, numbers: list[int]) -> list[dict[str, Any]]:
        import numpy as np

        row = {"size": LENGTH, "first": 64}
        return [{"tokens": np.full(LENGTH, i % 97), "pair": i % 2, **row} for i in numbers]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[10**6, 10**9])
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        measure(args.child)
        return
    for rows in args.rows:
        start = time.time()
        subprocess.run(
            [sys.executable, __file__, "--child", str(rows)],
            env={**os.environ, "PYTHONPATH": str(ROOT), "STARTED": str(start)},
            check=True,
        )


def measure(rows: int) -> None:
    from bert_jax.data.loader import Loader

    batches = Loader([RowIndex(rows)], BATCH, LENGTH, pad_id=0)
    stream = batches.iterate(STEP)
    next(stream)
    restart = time.time() - float(os.environ["STARTED"])
    start = time.perf_counter()
    batch = batches[STEP]
    look_up = time.perf_counter() - start
    assert len(set(batch["row"].tolist())) == BATCH
    for _ in range(9):
        next(stream)
    early = resident_megabytes()
    for _ in range(990):
        next(stream)
    late = resident_megabytes()
    print(
        f"{rows:.0e} rows: batch of step 10^6 in {look_up:.4f} s, first batch after a restart in "
        f"{restart:.2f} s, memory {early:.0f} MB after 10 batches, {late:.0f} MB after 1,000",
        flush=True,
    )


def resident_megabytes() -> float:
    """The current MB on Linux; elsewhere the peak so far."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * resource.getpagesize() / 1e6
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


if __name__ == "__main__":
    main()
