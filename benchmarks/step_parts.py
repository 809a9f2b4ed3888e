"""Where the time of a train step goes, part by part.

    python benchmarks/step_parts.py [configs/bert_small.py] [--rows 16] [--length 128] [--rounds 6]

Parts alternate in one process, on full rows of random ids. Prints for each the median of the
seconds, of the processor seconds (user and system time of all cores), and their share of the whole
step's. `products` is the time that the step's matrix products would take at the speed of a single
large product.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from bert_jax.config import Experiment, from_python_file, replace
from bert_jax.objectives import total_loss
from bert_jax.perf import flops
from bert_jax.perf.bench.inputs import BenchInputs, random_inputs
from bert_jax.perf.bench.options import masked_lm_config
from bert_jax.training.assemble import assemble
from bert_jax.training.step import compute_gradients, named_key
from bert_jax.utils import malloc
from bert_jax.utils.tables import format_table

SMALL_VOCABULARY = 1024  # costs next to nothing
PRODUCT = (2048, 512, 2048)  # rows, inputs and outputs of the large product
WHOLE, PRODUCTS = "the whole train step", "products"

Part = Callable[[], Any]


class Step:
    """The train step of a config, and its parts."""

    def __init__(self, inputs: BenchInputs) -> None:
        run = assemble(inputs.config, inputs, jax.devices()[:1])
        self.config, self.objective, self.steps = inputs.config, run.objective, run.steps
        self.seed = jnp.uint32(0)
        self.batch = self.steps.to_devices(inputs.pool()[0])
        self.state = self.steps.init()
        self.params = jax.tree.map(jnp.copy, self.state.params)  # the step donates its state
        self._corrupt = jax.jit(self.objective.corrupt)
        self._gradient = jax.jit(partial(compute_gradients, self.config, self.objective))
        self._forward = jax.jit(self._loss)
        self.corrupted = self.corrupt()

    def train(self) -> Any:
        self.state, metrics = self.steps.train(self.state, self.batch)
        return metrics

    def gradient(self) -> Any:
        return self._gradient(self.params, jnp.int32(0), self.batch, self.seed)

    def forward(self) -> Any:
        return self._forward(self.params, self.corrupted)

    def corrupt(self) -> Any:
        return self._corrupt(self.batch, named_key(self.seed, "corruption"))

    def _loss(self, params: Any, batch: Any) -> jax.Array:
        terms = self.objective.terms(params, batch, named_key(self.seed, "dropout"))
        return total_loss(self.objective.weights, terms, self.objective.counts(batch))


def step_parts(config: Experiment, stack: ExitStack) -> dict[str, Part]:
    """Functions that compute one part each, by the part's name."""
    step = Step(random_inputs(config, stack))
    zeros = dict(dropout=0.0, attention_dropout=0.0)
    plain = Step(random_inputs(replace(config, encoder=zeros), stack))
    small = dict(vocab_size=SMALL_VOCABULARY)
    small_vocabulary = Step(random_inputs(replace(config, encoder=small), stack))
    m, k, n = PRODUCT
    product = jax.jit(jnp.matmul)
    a, b = jnp.ones((m, k)), jnp.ones((k, n))
    return {
        WHOLE: step.train,
        "without dropout": plain.train,
        "gradient, with masking": step.gradient,
        f"gradient, a vocabulary of {SMALL_VOCABULARY:,}": small_vocabulary.gradient,
        "forward pass": step.forward,
        "masking": step.corrupt,
        PRODUCTS: lambda: product(a, b),
    }


def measure(parts: dict[str, Part], rounds: int) -> dict[str, tuple[float, float]]:
    """The medians of the seconds and of the processor seconds of each part."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in parts}
    for number in range(rounds + 2):
        for name, part in parts.items():
            start, processor = time.perf_counter(), time.process_time()
            jax.block_until_ready(part())
            took = time.perf_counter() - start, time.process_time() - processor
            if number >= 2:  # after compilation
                times[name].append(took)
    medians = {}
    for name, of_part in times.items():
        seconds, processor_seconds = zip(*of_part, strict=True)
        medians[name] = statistics.median(seconds), statistics.median(processor_seconds)
    return medians


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("config", nargs="?", default="configs/bert_small.py")
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=6)
    args = parser.parse_args()
    malloc.tune()
    config = replace(
        masked_lm_config(from_python_file(args.config)),
        data=dict(batch_size=args.rows, length=args.length, stages=None),
    )
    with ExitStack() as stack:
        medians = measure(step_parts(config, stack), args.rounds)
    m, k, n = PRODUCT
    scale = flops.per_step(config, args.rows, args.length) / (2 * m * k * n)
    seconds, processor_seconds = medians[PRODUCTS]
    medians[PRODUCTS] = seconds * scale, processor_seconds * scale
    _, whole = medians[WHOLE]
    rows = [(name, f"{s:.3f}", f"{p:.3f}", f"{p / whole:.2f}") for name, (s, p) in medians.items()]
    print(format_table(("part", "seconds", "processor seconds", "share of the step's"), rows))
    print(f"{args.rows} x {args.length} tokens, load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
