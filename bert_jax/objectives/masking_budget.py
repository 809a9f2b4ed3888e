"""How many tokens of a row are masked: a function of its length, the rounding and the masking rate,
which may change with the step."""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bert_jax.config import Masking
from bert_jax.utils.types import Batch


@functools.cache
def max_packed_predictions(masking: Masking, length: int, sequences: int) -> int:
    """`masking.num_slots` of a packed row of up to `sequences` sequences with a budget each: the
    largest sum over all sizes that fit into `length`."""
    limit = masking.num_slots(length)
    if masking.budget == "floor":
        budgets = np.array([int(masking.max_rate * n + 1e-6) + 1 for n in range(length + 1)])
    else:
        budgets = num_to_mask(masking, masking.max_rate, length, None)
    budgets = np.minimum(np.minimum(budgets, limit), np.arange(length + 1))
    best = budgets  # of one sequence of 0, 1, ... tokens; then of two sequences, three, ...
    for _ in range(1, sequences):
        best = np.array([(best[: n + 1] + budgets[n::-1]).max() for n in range(length + 1)])
    return int(best[-1])


def with_scheduled_rate(batch: Batch, masking: Masking, share: Any) -> Batch:
    """The batch with the masking `rate` [b] of its rows after a `share` of the schedule, if masking
    has a final rate: linear from the first to the final one (Ankner et al. 2024 use .3 to .15).
    A batch without `rate` is masked at the first rate."""
    if masking.final_rate is None:
        return batch
    rate = masking.rate + (masking.final_rate - masking.rate) * jnp.minimum(share, 1.0)
    return {**batch, "rate": jnp.full(batch["row"].shape, rate, jnp.float32)}


def num_to_mask(masking: Masking, rate: Any, length: int, u: Any) -> Any:
    """How many of 0, 1, ..., `length` tokens to mask, [length + 1]. BERT rounds half to even and
    masks at least one, SpanBERT rounds up, fairseq rounds at random (`u`) with the right mean. A
    fixed `rate` gives tables in double precision, as in the originals; a traced one, which they do
    not have, is computed in single precision."""
    if isinstance(rate, jax.Array):
        scaled = rate * jnp.arange(length + 1)
        if masking.budget == "floor":
            return jnp.floor(scaled + u).astype(jnp.int32)
        rounded = jnp.ceil(scaled - 1e-4) if masking.budget == "ceil" else jnp.round(scaled)
        return jnp.maximum(rounded, masking.budget == "round").astype(jnp.int32)
    exact = [rate * n for n in range(length + 1)]
    if masking.budget == "floor":
        return jnp.floor(jnp.asarray(exact, jnp.float32) + u).astype(jnp.int32)
    if masking.budget == "ceil":
        return np.array([math.ceil(s) for s in exact])
    return np.array([max(1, round(s)) for s in exact])
