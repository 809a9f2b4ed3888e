"""Measure what packing gains: real tokens per second with and without it, on the same text.

    python benchmarks/packed_step.py configs/bert_small.py corpora/padded corpora/packed \\
        --tokens 2048 --steps 8

The corpora are the same text prepared without --pack and with it. Steps alternate in one process.
Prints the median of each, their ratio, and the machine's load.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable

import jax

from bert_jax import config, objectives
from bert_jax.data import mixture
from bert_jax.data.corpus import open_corpus
from bert_jax.distributed import sharding
from bert_jax.training.step import compile_steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config")
    parser.add_argument("padded")
    parser.add_argument("packed")
    parser.add_argument("--tokens", type=int, default=2048, help="per batch, padding included")
    parser.add_argument("--steps", type=int, default=8, help="steps per corpus")
    args = parser.parse_args()
    names = ("padded", "packed")
    trainers = [build_trainer(args.config, getattr(args, name), args.tokens) for name in names]
    rates: list[list[float]] = [[], []]
    for number in range(args.steps + 2):
        for rate, train_step in zip(rates, trainers, strict=True):
            start = time.perf_counter()
            tokens = train_step(number)
            rate.append(tokens / (time.perf_counter() - start))
    medians = [statistics.median(rate[2:]) for rate in rates]  # after compilation
    for name, rate in zip(names, medians, strict=True):
        print(f"{name}: {rate:,.0f} real tokens/s")
    print(f"ratio {medians[1] / medians[0]:.2f}, load {os.getloadavg()[0]:.1f}")


def build_trainer(path: str, corpus: str, tokens: int) -> Callable[[int], int]:
    """A function that trains for one step and returns the number of real tokens."""
    rows = tokens // open_corpus(corpus).info.length
    experiment = config.replace(
        config.from_python_file(path), data=dict(path=corpus, batch_size=rows, length=None)
    )
    stages = mixture.open_stages(experiment)
    experiment = mixture.fill_in_config(experiment, stages[0].corpora)
    vocabulary = mixture.corpus_vocabulary(stages[-1])
    mesh = sharding.make_mesh(experiment.mesh)
    steps = compile_steps(experiment, objectives.build(experiment, vocabulary), mesh)
    batches, state = mixture.training_loader(experiment, stages), steps.init()

    def step(number: int) -> int:
        nonlocal state
        batch = batches[number]
        state, metrics = steps.train(state, steps.to_devices(batch))
        jax.block_until_ready(metrics)
        return int(batch["size"].sum())

    return step


if __name__ == "__main__":
    main()
