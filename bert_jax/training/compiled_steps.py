"""The state of a run, and the jitted functions that `step.compile_steps` returns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from bert_jax.model import lora
from bert_jax.training import guard
from bert_jax.utils.types import Batch

Seed = int | np.uint32 | jax.Array
NOTHING_FIXED: Any = {"base": {}, "teacher": {}}  # `CompiledSteps.fixed` of most runs


class TrainState(NamedTuple):
    """Everything that a step changes."""

    step: jax.Array  # int32: batches consumed; `opt` counts the updates that were made
    params: dict[str, Any]
    opt: Any
    guard: guard.LossHistory


class BoundSeed(NamedTuple):
    """A jitted function whose last arguments are arrays that no step changes, and the run's seed.
    As constants of the program they would compile every seed, and every base, anew."""

    jitted: Any  # as `jax.jit` returned it
    seed: np.uint32
    fixed: tuple[Any, ...] = ()  # ({"base": tree, "teacher": tree},); () for `init`

    @property
    def bound(self) -> tuple[Any, ...]:
        """The last arguments."""
        return (*self.fixed, self.seed)

    def __call__(self, *args: Any) -> Any:
        return self.jitted(*args, *self.bound)

    def lower(self, *args: Any) -> Any:
        """`jax.jit`'s `lower` with the last arguments."""
        return self.jitted.lower(*args, *self.bound)


class CompiledSteps(NamedTuple):
    """The jitted functions of one config on one mesh. Each compiles at its first call.

    `fixed` are the arrays that the functions read and no step changes: `base`, the frozen
    parameters beside which adapters are trained, and `teacher`, the network that a student learns
    from; empty trees without adapters or a teacher. They are
    descriptions (shapes, dtypes, shardings) until `with_fixed` binds arrays.
    """

    like: TrainState  # shapes, dtypes and shardings of the state
    init: Callable[[], TrainState]
    train: BoundSeed  # (state, batch) -> (state, metrics); the state's buffers are donated
    evaluate: BoundSeed  # (params, batch) -> terms
    gradient_report: BoundSeed  # (params, step, batch) -> terms, and norms of every leaf
    to_devices: Callable[[Batch], Batch]
    host_share: float = 1  # rows of a batch for each row that this process reads, at least 1
    init_base: Callable[[], Any] = dict  # a random base
    fixed: Any = NOTHING_FIXED

    def with_fixed(self, **trees: Any) -> CompiledSteps:
        """These steps with other `fixed` arrays."""
        fixed = {**self.fixed, **trees}
        bound = {n: getattr(self, n)._replace(fixed=(fixed,)) for n in BOUND}
        return self._replace(fixed=fixed, **bound)

    def network_params(self, params: Any) -> Any:
        """All parameters of the objective: the state's, and those of the base."""
        return lora.join(params, self.fixed["base"])


BOUND = ("train", "evaluate", "gradient_report")  # the functions that read `fixed`
