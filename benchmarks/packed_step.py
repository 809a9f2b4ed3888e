"""What packing brings: real tokens a second of the same training, on the same text, prepared
without --pack and with it; in one process, step by step in turn.

    python benchmarks/packed_step.py configs/bert_small.py corpora/padded corpora/packed \\
        --tokens 2048 --steps 8
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config")
    parser.add_argument("padded")
    parser.add_argument("packed")
    parser.add_argument("--tokens", type=int, default=2048, help="of a batch, padding included")
    parser.add_argument("--steps", type=int, default=8, help="of each")
    args = parser.parse_args()
    names = ("padded", "packed")
    sides = [side(args.config, getattr(args, name), args.tokens) for name in names]
    rates: list[list[float]] = [[], []]
    for number in range(args.steps + 2):
        for rate, step in zip(rates, sides, strict=True):
            began = time.perf_counter()
            tokens = step(number)
            rate.append(tokens / (time.perf_counter() - began))
    medians = [statistics.median(rate[2:]) for rate in rates]  # after compilation
    for name, rate in zip(names, medians, strict=True):
        print(f"{name}: {rate:,.0f} real tokens/s")
    print(f"ratio {medians[1] / medians[0]:.2f}, load {os.getloadavg()[0]:.1f}")


def side(path: str, corpus: str, tokens: int) -> Any:
    """A function that trains for one step and says on how many real tokens."""
    import jax

    from bert_jax import config, objectives
    from bert_jax.data import mixture
    from bert_jax.data.corpus import open_corpus
    from bert_jax.distributed import sharding
    from bert_jax.training.step import compile_steps

    rows = tokens // open_corpus(corpus).info.length
    asked = config.replace(
        config.from_python_file(path), data=dict(path=corpus, batch_size=rows, length=None)
    )
    stages = mixture.open_stages(asked)
    opened = stages[0].corpora
    experiment = mixture.fill_in_config(asked, opened)
    known = mixture.corpus_vocabulary(stages[-1])
    mesh = sharding.make_mesh(experiment.mesh)
    steps = compile_steps(experiment, objectives.build(experiment, known), mesh)
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
