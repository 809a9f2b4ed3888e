"""Depth costs no compile time: seconds to compile a train step of 6 and of 24 layers.

    python benchmarks/compile_depth.py [--repeat 3]

Alternating in one process, the persistent cache off; the median of each and their ratio.
"""

import argparse
import statistics
import time

import jax
import jax.numpy as jnp

from bert_jax import objectives
from bert_jax.config import BERT, Mesh, replace
from bert_jax.data.vocabulary import Vocabulary
from bert_jax.distributed import sharding
from bert_jax.training.step import compile_steps


def seconds(layers: int) -> float:
    config = replace(
        BERT,
        encoder=dict(layers=layers, hidden_size=128, heads=2, vocab_size=4000),
        data=dict(batch_size=8, length=128),
    )
    special = jnp.arange(4000) < 5
    objective = objectives.build(config, Vocabulary(4, special, ~special))  # type: ignore[arg-type]
    steps = compile_steps(config, objective, sharding.make_mesh(Mesh(), jax.devices()[:1]))
    ids = jax.ShapeDtypeStruct((8,), jnp.int32)
    batch = dict.fromkeys(("size", "first", "pair", "row", "epoch"), ids)
    batch["tokens"] = jax.ShapeDtypeStruct((8, 128), jnp.int32)
    begin = time.perf_counter()
    steps.train.lower(steps.like, batch).compile()
    return time.perf_counter() - begin


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--repeat", type=int, default=3)
    repeat = arguments.parse_args().repeat
    jax.config.update("jax_enable_compilation_cache", False)
    seconds(6)  # what is compiled once per process
    taken: dict[int, list[float]] = {6: [], 24: []}
    for _ in range(repeat):
        for layers, times in taken.items():
            times.append(seconds(layers))
    six, many = (statistics.median(t) for t in taken.values())
    print(f"6 layers {six:.2f} s, 24 layers {many:.2f} s, ratio {many / six:.2f}")


if __name__ == "__main__":
    main()
