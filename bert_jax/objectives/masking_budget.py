"""How many tokens a row has hidden: by its length, the law of rounding and, where the rate
changes with the step, the rate that is its turn."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bert_jax.config import Masking
from bert_jax.utils.types import Batch


def max_predictions(masking: Masking, length: int) -> int:
    """Slots for predictions in a row of `length` tokens: the largest budget possible."""
    if masking.budget == "floor":
        most = int(masking.max_rate * length) + 1
    else:
        most = int(num_to_mask(masking, masking.max_rate, length, None)[-1])
    return most if masking.max_predictions is None else min(most, masking.max_predictions)


def max_packed_predictions(masking: Masking, length: int, sequences: int) -> int:
    """The same for a row of up to so many sequences, each with a budget of its own: the most that
    any sizes which fit into `length` can have together."""
    most = max_predictions(masking, length)
    if masking.budget == "floor":
        each = np.array([int(masking.max_rate * n + 1e-6) + 1 for n in range(length + 1)])
    else:
        each = num_to_mask(masking, masking.max_rate, length, None)
    each = np.minimum(np.minimum(each, most), np.arange(length + 1))
    best = each  # of one sequence of up to so many tokens; then of two, three, ...
    for _ in range(1, sequences):
        best = np.array([(best[: n + 1] + each[n::-1]).max() for n in range(length + 1)])
    return int(best[-1])


def with_scheduled_rate(batch: Batch, masking: Masking, share: Any) -> Batch:
    """The batch with its rows' `rate` [b] once a `share` of the schedule is done, where masking
    has a last rate beside its first (Ankner et al. 2024 go from .3 to .15 in a line); packed rows
    too. A batch without it is corrupted at the first."""
    if masking.final_rate is None:
        return batch
    rate = masking.rate + (masking.final_rate - masking.rate) * jnp.minimum(share, 1.0)
    return {**batch, "rate": jnp.full(batch["row"].shape, rate, jnp.float32)}


def num_to_mask(masking: Masking, rate: Any, length: int, u: Any) -> Any:
    """Tokens to hide of 0, 1, ..., `length` tokens. BERT rounds half to even and takes at
    least one, SpanBERT rounds up, fairseq rounds at random (`u`) with the right mean.
    The two fixed ones are tables made in double precision, as the originals round; at a `rate`
    that is an array, which none of them has, single precision has to do."""
    if isinstance(rate, jax.Array):
        exact = rate * jnp.arange(length + 1)
        if masking.budget == "floor":
            return jnp.floor(exact + u).astype(jnp.int32)
        rounded = jnp.ceil(exact - 1e-4) if masking.budget == "ceil" else jnp.round(exact)
        return jnp.maximum(rounded, masking.budget == "round").astype(jnp.int32)
    shares = [rate * n for n in range(length + 1)]
    if masking.budget == "floor":
        return jnp.floor(jnp.asarray(shares, jnp.float32) + u).astype(jnp.int32)
    if masking.budget == "ceil":
        return np.array([math.ceil(s) for s in shares])
    return np.array([max(1, round(s)) for s in shares])
