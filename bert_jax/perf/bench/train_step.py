"""bert_jax as a contender: the whole train step of `pretrain`, on its mesh."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Sequence
from typing import Any

import jax

from bert_jax.config import replace
from bert_jax.optim import frozen_counts, network_depth
from bert_jax.perf.bench.inputs import BenchInputs, real_tokens
from bert_jax.perf.bench.timer import idle_share
from bert_jax.training.assemble import assemble
from bert_jax.training.step import CompiledSteps, named_key, to_floats
from bert_jax.utils.types import Batch


class BertJax:
    """Masking, forward and backward pass, guard and optimizer in one compiled step."""

    warm_up = 2

    def __init__(self, inputs: BenchInputs, devices: Sequence[Any], name: str = "bert_jax") -> None:
        self.inputs, self.name = inputs, name
        run = assemble(inputs.config, inputs, devices)
        self.objective, self.mesh = run.objective, run.mesh
        self.steps = run.steps.with_fixed(base=run.steps.init_base())
        pool = inputs.pool()
        self.real_tokens = statistics.mean(real_tokens(b) for b in pool)
        self.padded_tokens = pool[0]["tokens"].size
        self._pool = [self.steps.to_devices(batch) for batch in pool]
        self._batches = itertools.cycle(self._pool)
        self.compiled: Any = None
        self._state: Any = None
        self._metrics: Any = None

    def compile(self) -> None:
        """Compile the step, and make the first state."""
        start = time.perf_counter()
        self.compiled = compile_train_step(self.steps, self._pool[0])
        self.compile_seconds = time.perf_counter() - start
        start = time.perf_counter()
        self._state = jax.block_until_ready(self.steps.init())
        self.init_seconds = time.perf_counter() - start

    @property
    def state_bytes(self) -> int:
        """Parameters, optimizer state, and the base of adapters, over all devices."""
        steps = self.steps
        return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves((steps.like, steps.fixed)))

    @property
    def num_trained(self) -> int:
        """The number of parameters that have a gradient."""
        config, params = self.inputs.config, self.steps.like.params
        total = sum(x.size for x in jax.tree.leaves(params))
        if config.optim.freeze is None:
            return total
        return total - frozen_counts(config.optim.freeze, network_depth(config), params)[0]

    def step(self) -> None:
        self._train_on(next(self._batches))

    def wait(self) -> None:
        jax.block_until_ready((self._state, self._metrics))

    def masked_batches(self) -> list[Batch]:
        """The masked batches on the host: transformers trains on the same."""
        key = named_key(self.inputs.config.run.seed, "corruption")
        corrupt = jax.jit(self.objective.corrupt)
        return [jax.device_get(corrupt(batch, key)) for batch in self._pool]

    def idle_share(self, steps: int) -> float | None:
        """Fraction of the time in which the device waits, in a loop like training's: threads read
        batches ahead, and the metrics of one step are fetched while the next one runs."""
        if self.inputs.batches is None:
            return None
        stream, previous = self.inputs.batches.iterate(0), None
        self.wait()

        def dispatch() -> tuple[Any, float]:
            nonlocal previous
            batch = self.steps.to_devices(next(stream))
            start = time.perf_counter()
            self._train_on(batch)
            if previous is not None:
                to_floats(previous)
            previous = self._metrics
            return previous, start

        return idle_share(dispatch, jax.block_until_ready, steps)

    def _train_on(self, batch: Batch) -> None:
        self._state, self._metrics = self.compiled(self._state, batch, *self.steps.train.bound)


def compile_train_step(steps: CompiledSteps, batch: Batch) -> Any:
    """The train step compiled for batches of this shape; no array is allocated."""
    shapes = {k: jax.ShapeDtypeStruct(v.shape, v.dtype) for k, v in batch.items()}
    return steps.train.lower(steps.like, shapes).compile()


def compile_for_batch_size(inputs: BenchInputs, devices: Sequence[Any], batch_size: int) -> Any:
    """The train step compiled for another batch size; no array is allocated."""
    config = replace(inputs.config, data=dict(batch_size=batch_size))
    like = inputs.pool()[0]
    batch = {k: jax.ShapeDtypeStruct((batch_size, *v.shape[1:]), v.dtype) for k, v in like.items()}
    return compile_train_step(assemble(config, inputs, devices).steps, batch)
