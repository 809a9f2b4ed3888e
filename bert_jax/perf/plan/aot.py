"""The real train step, compiled for devices that are not there."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bert_jax.config import Experiment, Masked, ReplacedTokens
from bert_jax.data.vocabulary import Vocabulary
from bert_jax.perf import collectives, hlo
from bert_jax.perf.plan import costs
from bert_jax.training.assemble import assemble
from bert_jax.utils import compilation_cache

SPECIAL = 5  # made-up tokens that are never predicted


@dataclass(frozen=True)
class StepCost:
    """Per chip and step."""

    fits: bool
    bytes: int  # state, batch, code, and what lives while the step runs; where it does not fit ...
    limit: int | None  # ... what the compiler counted of how much it may use
    state: int  # of `bytes`: parameters and the optimiser's state
    costs: costs.Costs | None  # where it fits
    sent: float  # bytes to other chips
    collectives: tuple[collectives.Collective, ...]


@dataclass(frozen=True)
class StandIn:
    """Data that nobody reads: compiling needs shapes alone."""

    config: Experiment
    vocabulary: Vocabulary
    warm_start = None


def compile_step(config: Experiment, devices: list[Any]) -> StepCost:
    """The step of the config's longest stage. ValueError: a config for fine-tuning, or a mesh or
    a batch that does not divide."""
    if not isinstance(config.objective, Masked | ReplacedTokens):
        raise ValueError("plan takes a config for pre-training: rows of a task have many shapes")
    steps = assemble(config, StandIn(config, vocabulary(config)), devices).steps
    state = sum(_local(x) for x in jax.tree.leaves(steps.like))
    lowered = steps.train.lower(steps.like, rows(config))
    try:
        with compilation_cache.disabled():
            program = lowered.compile()
    except jax.errors.JaxRuntimeError as e:
        used = _out_of_memory(str(e))
        if used is None:
            raise
        return StepCost(False, *used, state, None, 0.0, ())
    memory = program.memory_analysis()
    text = hlo.parse(program.as_text())
    found = tuple(collectives.read_collectives(text))
    held = memory.argument_size_in_bytes + memory.output_size_in_bytes
    held += memory.temp_size_in_bytes - memory.alias_size_in_bytes
    held += memory.generated_code_size_in_bytes
    sent = sum(c.sent for c in found)
    return StepCost(True, held, None, state, costs.read_costs(text), sent, found)


def shape(config: Experiment) -> tuple[int, int]:
    """Rows and tokens of the longest stage's batches."""
    longest = max(config.stages, key=lambda s: s.length or config.encoder.max_length)
    return longest.batch_size, longest.length or config.encoder.max_length


def rows(config: Experiment) -> dict[str, jax.ShapeDtypeStruct]:
    """A batch as data.py makes it."""
    n, length = shape(config)
    batch = {k: jax.ShapeDtypeStruct((n,), jnp.int32) for k in ("size", "first", "pair")}
    batch |= {k: jax.ShapeDtypeStruct((n,), jnp.int32) for k in ("row", "epoch")}
    return {"tokens": jax.ShapeDtypeStruct((n, length), jnp.int32), **batch}


def vocabulary(config: Experiment) -> Vocabulary:
    """One of the config's size: what it holds changes no shape."""
    at = np.arange(config.encoder.vocab_size)
    return Vocabulary(SPECIAL - 1, at < SPECIAL, at >= 0, np.where(at < SPECIAL, 0, 1))


def _local(x: Any) -> int:
    shape = x.sharding.shard_shape(x.shape) if x.sharding is not None else x.shape
    return int(np.prod(shape)) * x.dtype.itemsize


_SIZE = r"([\d.]+)([KMGT]?)"


def _out_of_memory(message: str) -> tuple[int, int] | None:
    """Bytes that would be needed, and that there are; None: something else went wrong."""
    for pattern in (
        rf"\({_SIZE}\) exceeds available HBM \({_SIZE}\)",
        rf"Used {_SIZE} of {_SIZE} hbm",
        rf"total hbm usage >= {_SIZE}.*?{_SIZE} hbm",
    ):
        found = re.search(pattern, message, re.DOTALL)
        if found:
            a, b, c, d = found.groups()
            return _bytes(a, b), _bytes(c, d)
    return None


def _bytes(number: str, unit: str) -> int:
    return round(float(number) * 1024 ** " KMGT".index(unit or " "))
