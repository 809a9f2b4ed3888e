"""Measure the peak memory and the speed of `prepare` on a small and a large text.

    python benchmarks/prepare_memory.py --megabytes 10 300 --workers 1 2

Prints peak memory, seconds and MB/s for each size. Memory is the sum of resident pages over the
process tree, read five times a second from `ps`; a page that two processes share counts twice.
Speed per core is text over the CPU time of all processes, so other load does not change it.
"""

from __future__ import annotations

import argparse
import itertools
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CHILD = """
import sys
from bert_jax.data.prepare import prepare_corpus
text, tokenizer, segments, length, out, workers = sys.argv[1:]
if __name__ == "__main__":
    prepare_corpus([text], tokenizer, segments, int(length), out, int(workers), progress=False)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=int, nargs="+", default=[10, 300])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--segments", default="nsp")
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--vocab-size", type=int, default=8000)
    parser.add_argument("--kind", default="wordpiece")
    parser.add_argument("--sample", type=Path, default=ROOT / "data" / "sample.txt")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "child.py").write_text(CHILD)
        train_tokenizer(args.sample, args.kind, args.vocab_size, folder / "tokenizer")
        for workers in args.workers:
            peaks = [measure(folder, args, megabytes, workers) for megabytes in args.megabytes]
            growth = max(peaks) / min(peaks) - 1
            print(f"workers {workers}: peak memory differs by {growth:.1%}", flush=True)


def train_tokenizer(sample: Path, kind: str, vocab_size: int, out: Path) -> None:
    from bert_jax.data.tokenization.training import train_tokenizer

    with sample.open(encoding="utf-8") as lines:
        train_tokenizer(lines, kind, vocab_size).save(out)  # type: ignore[arg-type]


def measure(folder: Path, args: argparse.Namespace, megabytes: int, workers: int) -> float:
    """Prepare `megabytes` of text, print a line, and return the peak memory in MB."""
    text = folder / f"{megabytes}.txt"
    if not text.exists():
        write_text(args.sample, text, megabytes * 1_000_000)
    out = folder / f"corpus-{megabytes}-{workers}"
    command = [sys.executable, str(folder / "child.py"), str(text), str(folder / "tokenizer")]
    command += [args.segments, str(args.length), str(out), str(workers)]
    cpu_before, start = cpu_seconds(), time.monotonic()
    child = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT)})
    peak = 0.0
    while child.poll() is None:
        peak = max(peak, resident_megabytes(child.pid))
        time.sleep(0.2)
    if child.returncode:
        raise SystemExit(f"prepare failed with exit status {child.returncode}")
    seconds, cpu = time.monotonic() - start, cpu_seconds() - cpu_before
    print(
        f"workers {workers}, {megabytes} MB: peak {peak:.0f} MB, {seconds:.1f} s, "
        f"{megabytes / seconds:.2f} MB/s, {megabytes / cpu:.2f} MB/s per core",
        flush=True,
    )
    return peak


def write_text(sample: Path, out: Path, size: int) -> None:
    """Repeat the sample up to `size`; each copy has its own number in every paragraph."""
    lines = sample.read_text(encoding="utf-8").splitlines()
    written = 0
    with out.open("w", encoding="utf-8") as f:
        for copy in itertools.count():
            for number, line in enumerate(lines):
                changed = f"{line} Copy {copy} of {number}.\n" if line else "\n"
                f.write(changed)
                written += len(changed)
                if written >= size:
                    return
            f.write("\n")


def cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def resident_megabytes(root: int) -> float:
    """The resident memory of a process and its descendants."""
    output = subprocess.run(
        ["ps", "-eo", "pid=,ppid=,rss="], capture_output=True, text=True, check=True
    ).stdout
    rows = [tuple(map(int, line.split())) for line in output.splitlines()]
    tree = {root}
    while children := {pid for pid, parent, _ in rows if parent in tree} - tree:
        tree |= children
    return sum(kb for pid, _, kb in rows if pid in tree) / 1024


if __name__ == "__main__":
    main()
