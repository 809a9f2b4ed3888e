"""The input pipeline alone: how many real tokens a second a corpus gives on this machine.

    python benchmarks/loader.py corpora/512 corpora/512_packed [--batch-size 64] [--seconds 5]

The same corpora in turn, three times over, and the best of each: what else the machine does only
takes away.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("corpus", nargs="+")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=5, help="of each measurement")
    args = parser.parse_args()
    from bert_jax.data.corpus import open_corpus
    from bert_jax.data.loader import Loader

    opened = [open_corpus(path) for path in args.corpus]
    streams = [
        Loader(
            [corpus.source("train")],
            args.batch_size,
            corpus.info.length,
            corpus.info.pad_id,
            threads=args.threads,
            packed=corpus.info.packed,
        ).start()
        for corpus in opened
    ]
    best = [0.0] * len(opened)
    for _ in range(3):
        for i, stream in enumerate(streams):
            for _ in range(2 * args.threads):  # what was read ahead meanwhile
                next(stream)
            tokens, began = 0, time.perf_counter()
            while (seconds := time.perf_counter() - began) < args.seconds:
                tokens += int(next(stream)["size"].sum())
            best[i] = max(best[i], tokens / seconds)
    for corpus, rate in zip(opened, best, strict=True):
        padding = corpus.info.padding("train")
        print(f"{corpus.path}: {rate:,.0f} real tokens/s, {padding:.1%} of its tokens padding")
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
