"""The kernels of flash_gpu.py: one row, one head and a block of queries (or of keys), in Triton.

    attend        grid: blocks of queries; loops over the keys that they may see
    key_gradients   grid: blocks of keys; loops over the queries that may see them -> dk dv
    query_gradients grid: blocks of queries; loops over keys -> dq

Scores are kept in base 2: GPUs have an instruction for 2^x. `attend` stores the logarithm of each
query's softmax denominator, from which the other two recompute the probabilities (Dao 2023,
arXiv 2307.08691). Dropout is that of the TPU's kernel: the same seed drops the same places.

Axes: l tokens of a row, q queries and s keys of a block, k head width.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jaxtyping import Array, Bool, Float, Int

from bert_jax.model.attention.flash_kernel import NT, TN, dot, hash_word

Ref = Any  # a reference into memory, read and written by indexing
LOWEST = -1e30  # the score of a key that a query does not see: finite, so that no softmax is NaN
HIGHEST = 1e30  # the logarithm of a padding query's denominator: its probabilities are then zero


class BlockConfig(NamedTuple):
    """The compile-time parameters of a kernel."""

    length: int  # of a row, padded to a multiple of the TPU's lanes: part of the law of dropout
    queries: int  # of a block
    keys: int  # of a block
    packed: bool
    windowed: bool
    keep: int  # how many of 256 probabilities dropout keeps; 256: no dropout


class Scores(NamedTuple):
    """A block of queries against a block of keys."""

    logits: Float[Array, "q s"]  # base 2; LOWEST for keys that no query of the row sees
    visible: Bool[Array, "q s"] | None  # where queries of a row see different keys
    keep: Bool[Array, "q s"] | None  # by dropout


def attend(
    c: BlockConfig, scalars: Ref, limits: Ref, segments: Ref, q: Ref, k: Ref, v: Ref,
    out: Ref, log_total: Ref,
) -> None:  # fmt: skip
    """Write out [q k] and log_total [q] from q [q k], k and v [l k], segments [l].

    `scalars` [5]: two words of the seed, the indices in the whole batch of this device's first row
    and head, and the window. `limits` [2]: the first key and the end of the keys that a query of
    this block may see, before the window.
    """
    block, words = pl.program_id(2), _head_words(scalars)
    queries = q[...]

    def step(i: Any, state: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        acc, highest, total = state
        at = pl.ds(i * c.keys, c.keys)
        scores = _scores(c, scalars, words, segments, queries, k[at, :], block, i)
        logits = scores.logits
        if scores.visible is not None:
            logits = jnp.where(scores.visible, logits, LOWEST)
        new_highest = jnp.maximum(highest, jnp.max(logits, axis=1))
        correction = jnp.exp2(highest - new_highest)
        weights = jnp.exp2(logits - new_highest[:, None])
        total = total * correction + jnp.sum(weights, axis=1)
        if scores.keep is not None:
            weights = jnp.where(scores.keep, weights, 0.0)
        acc = acc * correction[:, None] + dot(weights.astype(v.dtype), v[at, :])
        return acc, new_highest, total

    zeros = jnp.zeros((c.queries,), jnp.float32)
    state = jnp.zeros(queries.shape, jnp.float32), zeros + LOWEST, zeros
    acc, highest, total = lax.fori_loop(
        *_bounds(c, scalars, limits, block, c.queries, c.keys), step, state
    )
    is_real = segments[pl.ds(block * c.queries, c.queries)] > 0
    total = jnp.where(is_real, total, 1.0)
    scale = jnp.where(is_real, 256 / c.keep / total, 0.0)
    out[...] = (acc * scale[:, None]).astype(out.dtype)
    log_total[...] = jnp.where(is_real, highest + jnp.log2(total), HIGHEST)


def key_gradients(
    c: BlockConfig, scalars: Ref, limits: Ref, segments: Ref, q: Ref, k: Ref, v: Ref,
    d_out: Ref, log_total: Ref, delta: Ref, dk: Ref, dv: Ref,
) -> None:  # fmt: skip
    """Write dk and dv [s k] of a block of keys, from k and v [s k], and q and d_out [l k],
    log_total and delta [l] of the row. delta: the product of out and d_out, summed over k."""
    block, words = pl.program_id(2), _head_words(scalars)
    keys, values = k[...], v[...]

    def step(i: Any, state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        dk_sum, dv_sum = state
        at = pl.ds(i * c.queries, c.queries)
        queries, cotangent = q[at, :], d_out[at, :]
        scores = _scores(c, scalars, words, segments, queries, keys, i, block)
        dropped, d_logits = _gradients(c, scores, cotangent, values, log_total[at], delta[at])
        dv_sum += dot(dropped.astype(cotangent.dtype), cotangent, TN)
        dk_sum += dot(d_logits.astype(queries.dtype), queries, TN)
        return dk_sum, dv_sum

    zeros = jnp.zeros(keys.shape, jnp.float32)
    bounds = _bounds(c, scalars, limits, block, c.keys, c.queries)
    dk_sum, dv_sum = lax.fori_loop(*bounds, step, (zeros, zeros))
    dk[...] = (dk_sum * keys.shape[1] ** -0.5).astype(dk.dtype)
    dv[...] = (dv_sum * (256 / c.keep)).astype(dv.dtype)


def query_gradients(
    c: BlockConfig, scalars: Ref, limits: Ref, segments: Ref, q: Ref, k: Ref, v: Ref,
    d_out: Ref, log_total: Ref, delta: Ref, dq: Ref,
) -> None:  # fmt: skip
    """Write dq [q k] of a block of queries, from q and d_out [q k], log_total and delta [q], and
    k and v [l k]."""
    block, words = pl.program_id(2), _head_words(scalars)
    queries, cotangent, log_sum, deltas = q[...], d_out[...], log_total[...], delta[...]

    def step(i: Any, dq_sum: jax.Array) -> jax.Array:
        at = pl.ds(i * c.keys, c.keys)
        keys = k[at, :]
        scores = _scores(c, scalars, words, segments, queries, keys, block, i)
        _, d_logits = _gradients(c, scores, cotangent, v[at, :], log_sum, deltas)
        return dq_sum + dot(d_logits.astype(keys.dtype), keys)

    zeros = jnp.zeros(queries.shape, jnp.float32)
    bounds = _bounds(c, scalars, limits, block, c.queries, c.keys)
    dq_sum = lax.fori_loop(*bounds, step, zeros)
    dq[...] = (dq_sum * queries.shape[1] ** -0.5).astype(dq.dtype)


def _bounds(
    c: BlockConfig, scalars: Ref, limits: Ref, block: Any, size: int, other: int
) -> tuple[Any, Any]:
    """The first and the end of the blocks of `other` tokens that a block of `size` tokens meets."""
    first, end = limits[0], limits[1]
    if c.windowed:
        window = scalars[4].astype(jnp.int32)
        first = jnp.maximum(first, block * size - window)
        end = jnp.minimum(end, (block + 1) * size + window)
    return lax.div(first, other), lax.div(end + (other - 1), other)


def _scores(
    c: BlockConfig,
    scalars: Ref,
    words: tuple[Any, Any],
    segments: Ref,
    queries: Float[Array, "q k"],
    keys: Float[Array, "s k"],
    query_block: Any,
    key_block: Any,
) -> Scores:
    logits = dot(queries, keys, NT) * (queries.shape[1] ** -0.5 * math.log2(math.e))
    key_segments = segments[pl.ds(key_block * c.keys, c.keys)]
    query_at = _positions(c, query_block, c.queries, 0)
    key_at = _positions(c, key_block, c.keys, 1)
    visible = None
    if c.packed:
        query_segments = segments[pl.ds(query_block * c.queries, c.queries)]
        visible = key_segments[None, :] == query_segments[:, None]
    else:  # a sum and no selection: one instruction together with the product above
        logits += jnp.where(key_segments > 0, 0.0, LOWEST)[None, :]
    if c.windowed:
        near = jnp.abs(key_at - query_at) <= scalars[4].astype(jnp.int32)
        visible = near if visible is None else visible & near
    return Scores(logits, visible, _keep(c, words, query_at, key_at) if c.keep < 256 else None)


def _positions(c: BlockConfig, block: Any, size: int, axis: int) -> Int[Array, "q s"]:
    return lax.broadcasted_iota(jnp.int32, (c.queries, c.keys), axis) + block * size


def _head_words(scalars: Ref) -> tuple[Any, Any]:
    """Two random words of this row and head."""
    row = scalars[2] + pl.program_id(0).astype(jnp.uint32)
    head = scalars[3] + pl.program_id(1).astype(jnp.uint32)
    return hash_word(hash_word(scalars[0] + row) + head), hash_word(
        hash_word(scalars[1] + row) + head
    )


def _keep(
    c: BlockConfig, words: tuple[Any, Any], query_at: Int[Array, "q s"], key_at: Int[Array, "q s"]
) -> Bool[Array, "q s"]:
    """Which probabilities dropout keeps: the law of flash_kernel.py, where one word decides for
    four queries, 8 apart. Here each place computes its word and takes its byte."""
    first, second = words
    query, key = query_at.astype(jnp.uint32), key_at.astype(jnp.uint32)
    line = ((query >> 5) << 3) | (query & 7)
    word = hash_word((line * jnp.uint32(c.length) + key) ^ first, second)
    return ((word >> (((query >> 3) & 3) << 3)) & 255) < c.keep


def _gradients(
    c: BlockConfig,
    scores: Scores,
    d_out: Float[Array, "q k"],
    values: Float[Array, "s k"],
    log_total: Float[Array, " q"],
    delta: Float[Array, " q"],
) -> tuple[Float[Array, "q s"], Float[Array, "q s"]]:
    """The probabilities that dropout keeps (not yet scaled up), and the gradient of the logits in
    base e before the division by sqrt(k)."""
    weights = jnp.exp2(scores.logits - log_total[:, None])
    if scores.visible is not None:
        weights = jnp.where(scores.visible, weights, 0.0)
    d_weights = dot(d_out, values, NT)
    dropped = weights
    if scores.keep is not None:
        dropped = jnp.where(scores.keep, weights, 0.0)
        d_weights = jnp.where(scores.keep, d_weights, 0.0)
    d_logits = weights * (d_weights * (256 / c.keep) - delta[:, None])
    return dropped, d_logits
