"""Measure how compile time depends on depth: a train step of 6 and of 24 layers.

    python benchmarks/compile_depth.py [--repeat 3]

Prints the median seconds of each and their ratio. Compiles alternate in one process without the
persistent cache.
"""

import argparse
import statistics
import time

import jax

from bert_jax.config import BERT, replace
from bert_jax.perf.stand_ins import ShapesOnly, abstract_batch
from bert_jax.training.assemble import assemble


def compile_seconds(layers: int) -> float:
    config = replace(
        BERT,
        encoder=dict(layers=layers, hidden_size=128, heads=2, vocab_size=4000),
        data=dict(batch_size=8, length=128),
    )
    steps = assemble(config, ShapesOnly(config), jax.devices()[:1]).steps
    start = time.perf_counter()
    steps.train.lower(steps.like, abstract_batch(config)).compile()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeat", type=int, default=3)
    repeat = parser.parse_args().repeat
    jax.config.update("jax_enable_compilation_cache", False)
    compile_seconds(6)  # also compiles what a process compiles once
    seconds: dict[int, list[float]] = {6: [], 24: []}
    for _ in range(repeat):
        for layers, of_depth in seconds.items():
            of_depth.append(compile_seconds(layers))
    shallow, deep = (statistics.median(of_depth) for of_depth in seconds.values())
    print(f"6 layers {shallow:.2f} s, 24 layers {deep:.2f} s, ratio {deep / shallow:.2f}")


if __name__ == "__main__":
    main()
