"""Ahead-of-time compilation: the real train step for devices that are not attached."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from bert_jax.config import Encoder, Experiment, Imported, Masked, ReplacedTokens
from bert_jax.perf import collectives, flops, hlo
from bert_jax.perf.plan.costs import ProgramCosts, read_costs
from bert_jax.perf.plan.gpu_topologies import without_cudnn
from bert_jax.perf.plan.topologies import Topology
from bert_jax.perf.stand_ins import ShapesOnly, abstract_batch
from bert_jax.perf.step_memory import step_memory
from bert_jax.training.assemble import assemble
from bert_jax.utils import compilation_cache


@dataclass(frozen=True)
class StepCost:
    """Memory, work and communication of a step, per chip. Sizes are in bytes."""

    fits: bool
    bytes: int  # state, batch, code and temporaries; the compiler's estimate if it does not fit
    limit: int | None  # that a step may take; None: not told, as by a compiler that is content
    state: int  # of `bytes`: parameters and optimizer state
    costs: ProgramCosts | None  # None: it was not compiled, since it does not fit
    sent: float  # to other chips of the slice or host
    collectives: tuple[collectives.Collective, ...]
    network: float = 0.0  # sent to other hosts of GPUs


def compile_step(config: Experiment, topology: Topology) -> StepCost:
    """Compile the step of the config's largest stage. ValueError: the objective is neither masked
    words nor replaced tokens, or the mesh or batch does not divide."""
    objective = config.objective
    if not isinstance(objective, Masked | ReplacedTokens):
        has_task = not isinstance(objective, Imported)
        what = f"objective.task {objective.task}" if has_task else "an imported network"
        raise ValueError(
            f"plan does not support {what}: give a config for pre-training with masked words or "
            "replaced tokens"
        )
    steps = assemble(config, ShapesOnly(config), topology.devices).steps
    state = sum(_bytes_per_device(x) for x in jax.tree.leaves((steps.like, steps.fixed)))
    with without_cudnn():
        lowered = steps.train.lower(steps.like, abstract_batch(config))
    try:
        with compilation_cache.disabled():
            program = lowered.compile()
    except jax.errors.JaxRuntimeError as e:
        used_and_limit = _out_of_memory(str(e))
        if used_and_limit is None:
            raise
        return StepCost(False, *used_and_limit, state, None, 0.0, ())
    used = step_memory(program)["peak"]
    parsed = hlo.parse_hlo(program.as_text())
    sends = tuple(collectives.read_collectives(parsed, topology.hosts))
    limit = topology.memory_limit
    return StepCost(
        limit is None or used <= limit,
        *(used, limit, state, read_costs(parsed, _global_share(config.encoder))),
        *(sum(c.sent_bytes for c in sends), sends, sum(c.network_bytes for c in sends)),
    )


def _global_share(encoder: Encoder) -> float | None:
    return None if encoder.window is None else flops.num_global_layers(encoder) / encoder.layers


def _bytes_per_device(x: Any) -> int:
    shape = x.sharding.shard_shape(x.shape) if x.sharding is not None else x.shape
    return int(np.prod(shape)) * x.dtype.itemsize


_SIZE = r"([\d.]+)([KMGT]?)"


def _out_of_memory(message: str) -> tuple[int, int] | None:
    """Bytes used and available, from the compiler's message; None if it is another error."""
    for pattern in (
        rf"\({_SIZE}\) exceeds available HBM \({_SIZE}\)",
        rf"Used {_SIZE} of {_SIZE} hbm",
        rf"total hbm usage >= {_SIZE}.*?{_SIZE} hbm",
    ):
        match = re.search(pattern, message, re.DOTALL)
        if match:
            used, used_unit, limit, limit_unit = match.groups()
            return _bytes(used, used_unit), _bytes(limit, limit_unit)
    return None


def _bytes(number: str, unit: str) -> int:
    return round(float(number) * 1024 ** " KMGT".index(unit or " "))
