"""Measure the dataloader alone: real tokens per second from a corpus.

    python benchmarks/loader.py corpora/512 corpora/512_packed [--batch-size 64] [--seconds 5]

Prints for each corpus the best of three rounds, the share of padding, and the machine's load. The
corpora alternate; other processes only make a round slower.
"""

from __future__ import annotations

import argparse
import os
import time

from bert_jax.data.corpus import open_corpus
from bert_jax.data.loader import Loader


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("corpus", nargs="+")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=5, help="seconds per measurement")
    args = parser.parse_args()
    corpora = [open_corpus(path) for path in args.corpus]
    streams = [
        Loader(
            [corpus.source("train")],
            args.batch_size,
            corpus.info.length,
            corpus.info.pad_id,
            threads=args.threads,
            packed=corpus.info.packed,
        ).iterate()
        for corpus in corpora
    ]
    best = [0.0] * len(corpora)
    for _ in range(3):
        for i, stream in enumerate(streams):
            for _ in range(2 * args.threads):  # skip what was read ahead
                next(stream)
            tokens, start = 0, time.perf_counter()
            while (seconds := time.perf_counter() - start) < args.seconds:
                tokens += int(next(stream)["size"].sum())
            best[i] = max(best[i], tokens / seconds)
    for corpus, rate in zip(corpora, best, strict=True):
        padding = corpus.info.padding("train")
        print(f"{corpus.path}: {rate:,.0f} real tokens/s, {padding:.1%} of the tokens are padding")
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
