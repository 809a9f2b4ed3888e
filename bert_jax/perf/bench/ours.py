"""Our side: the train step of `pretrain`, whole, on its mesh."""

from __future__ import annotations

import itertools
import statistics
import time
from typing import Any

import jax

from bert_jax import config, objectives
from bert_jax.config import Experiment
from bert_jax.perf.bench.inputs import BenchInputs, real_tokens
from bert_jax.perf.bench.timer import idle_share
from bert_jax.training import step as train
from bert_jax.utils.types import Batch


class BertJax:
    """Corruption, both passes, the guard and the optimiser of one compiled step."""

    name, warm_up = "bert_jax", 2

    def __init__(self, rows: BenchInputs, mesh: jax.sharding.Mesh) -> None:
        self.rows = rows
        self.objective = objectives.build(rows.experiment, rows.vocabulary)
        self.steps = train.build_steps(rows.experiment, self.objective, mesh)
        pool = rows.pool()
        self.real_tokens = statistics.mean(real_tokens(b) for b in pool)
        self.padded_tokens = pool[0]["tokens"].size
        self._pool = [self.steps.to_devices(batch) for batch in pool]
        begin = time.perf_counter()
        self.compiled = compile_train_step(self.steps, pool[0])
        self.compile_seconds = time.perf_counter() - begin
        self._ahead = itertools.cycle(self._pool)
        self._state: Any = self.steps.init()
        self._metrics: Any = None

    def step(self) -> None:
        self._step_on(next(self._ahead))

    def wait(self) -> None:
        jax.block_until_ready((self._state, self._metrics))

    def corrupted(self) -> list[Batch]:
        """The pool as the network reads it, on the host: what a peer is handed."""
        key = train.named_key(self.rows.experiment.run.seed, "corruption")
        corrupt = jax.jit(self.objective.corrupt)
        return [jax.device_get(corrupt(batch, key)) for batch in self._pool]

    def idle_share(self, steps: int) -> float | None:
        """Of the device, in a loop as `train.fit` has it: batches read ahead by threads, the
        numbers of the step before fetched while one runs."""
        if self.rows.batches is None:
            return None
        ahead, before = self.rows.batches.iterate(0), None
        self.wait()

        def dispatch() -> tuple[Any, float]:
            nonlocal before
            batch = self.steps.to_devices(next(ahead))
            at = time.perf_counter()
            self._step_on(batch)
            if before is not None:
                train.to_floats(before)
            before = self._metrics
            return before, at

        return idle_share(dispatch, jax.block_until_ready, steps)

    def _step_on(self, batch: Batch) -> None:
        self._state, self._metrics = self.compiled(self._state, batch, self.steps.train.seed)


def compile_train_step(steps: train.CompiledSteps, batch: Batch) -> Any:
    """The train step, compiled for batches like this one, from shapes alone."""
    shapes = {k: jax.ShapeDtypeStruct(v.shape, v.dtype) for k, v in batch.items()}
    return steps.train.lower(steps.like, shapes).compile()


def compile_for_batch_size(
    experiment: Experiment, rows: BenchInputs, mesh: Any, batch_size: int
) -> Any:
    """The step of another batch size; nothing is allocated for it."""
    asked = config.replace(experiment, data=dict(batch_size=batch_size))
    steps = train.build_steps(asked, objectives.build(asked, rows.vocabulary), mesh)
    like = rows.pool()[0]
    batch = {k: jax.ShapeDtypeStruct((batch_size, *v.shape[1:]), v.dtype) for k, v in like.items()}
    return compile_train_step(steps, batch)
