"""The kernels of flash.py: one row, a few heads and a tile of queries, forward and backward.

All scores of the tile fit in VMEM. Only q k v are stored between the two passes: the backward
kernel recomputes the probabilities and drops the same ones, since dropout is a function of the
position and has no state.

Axes: l keys, t queries of the tile, k head width; heads lie side by side, `n k` of them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jaxtyping import Array, Bool, Float, UInt32

from bert_jax.distributed.constraints import row_seed
from bert_jax.model.layers import keep_threshold_u8

LANES = 128  # width of a TPU vector register; lengths and tiles are multiples
Ref = Any  # a reference into VMEM or SMEM, read and written by indexing
NT = (((1,), (1,)), ((), ()))  # a b^T
TN = (((0,), (0,)), ((), ()))  # a^T b


class KernelConfig(NamedTuple):
    """The compile-time parameters of a kernel."""

    heads: int  # of the whole model
    width: int  # of a head
    packed: bool
    windowed: bool
    keep: int  # how many of 256 probabilities dropout keeps; 256: no dropout


def dropout_scalars(
    key: jax.Array | None, rate: float, window: Any
) -> tuple[int, UInt32[Array, "3"]]:
    """How many of 256 probabilities dropout keeps, and the scalars that a call of the kernels gets:
    two words of the seed, and the window, 0 if there is none."""
    if key is None or rate == 0.0:
        keep, seed = 256, jnp.zeros(2, jnp.uint32)
    else:
        keep, seed = keep_threshold_u8(rate), row_seed(jax.random.bits(key, (2,), jnp.uint32))
    return keep, jnp.append(seed, jnp.asarray(0 if window is None else window, jnp.uint32))


def with_offset(scalars: UInt32[Array, "3"], row: Any, head: Any) -> UInt32[Array, "5"]:
    """The scalars of a device, whose first row and head have these indices in the whole batch: so
    dropout is the same on every mesh."""
    offset = jnp.array([row, head], jnp.uint32)
    return jnp.concatenate([scalars[:2], offset, scalars[2:]])


def forward(
    config: KernelConfig, scalars: Ref, segments: Ref, q: Ref, k: Ref, v: Ref, out: Ref
) -> None:
    """Write out [1 t nk] from q [1 t nk], k and v [1 l nk], segments [1 1 l].

    `scalars` [5]: two words of the seed, the indices in the whole batch of this device's first
    row and head, and the window (`with_offset`).
    """
    t, length, width = q.shape[1], k.shape[1], config.width
    visible, is_real = _visible_keys(config, scalars, segments, t)
    heads = []
    for head in range(q.shape[2] // width):
        cols = pl.ds(head * width, width)
        weights, total = _softmax_parts(q[0, :, cols], k[0, :, cols], visible)
        if config.keep < 256:
            weights = jnp.where(_keep_mask(config, scalars, head, q.shape, length), weights, 0)
        product = dot(weights.astype(v.dtype), v[0, :, cols])
        heads.append(product * (256 / config.keep / total))
    out[0] = jnp.where(is_real, jnp.concatenate(heads, axis=1), 0).astype(out.dtype)


def backward(
    config: KernelConfig,
    scalars: Ref,
    segments: Ref,
    q: Ref,
    k: Ref,
    v: Ref,
    d_out: Ref,
    dq: Ref,
    dk: Ref,
    dv: Ref,
    dk_sum: Ref,
    dv_sum: Ref,
) -> None:
    """Write dq [1 t nk] of the tile, and dk and dv [1 l nk], float32 sums over a row's tiles."""
    t, length, width, i = q.shape[1], k.shape[1], config.width, pl.program_id(2)
    visible, is_real = _visible_keys(config, scalars, segments, t)

    @pl.when(i == 0)
    def _() -> None:
        dk_sum[...] = jnp.zeros_like(dk_sum)
        dv_sum[...] = jnp.zeros_like(dv_sum)

    for head in range(q.shape[2] // width):
        cols = pl.ds(head * width, width)
        weights, total = _softmax_parts(q[0, :, cols], k[0, :, cols], visible)
        weights = weights / total
        scaled = jnp.where(is_real, d_out[0, :, cols].astype(jnp.float32) * (256 / config.keep), 0)
        scaled = scaled.astype(d_out.dtype)
        dropped, d_weights = weights, dot(scaled, v[0, :, cols], NT)
        if config.keep < 256:
            keep = _keep_mask(config, scalars, head, q.shape, length)
            dropped, d_weights = jnp.where(keep, weights, 0), jnp.where(keep, d_weights, 0)
        dv_sum[:, cols] += dot(dropped.astype(v.dtype), scaled, TN)
        d_scores = weights * (d_weights - jnp.sum(weights * d_weights, axis=1, keepdims=True))
        d_scores = (d_scores * width**-0.5).astype(q.dtype)
        dq[0, :, cols] = dot(d_scores, k[0, :, cols]).astype(dq.dtype)
        dk_sum[:, cols] += dot(d_scores, q[0, :, cols], TN)

    @pl.when(i == pl.num_programs(2) - 1)
    def _() -> None:
        dk[0] = dk_sum[...].astype(dk.dtype)
        dv[0] = dv_sum[...].astype(dv.dtype)


def _visible_keys(
    config: KernelConfig, scalars: Ref, segments: Ref, t: int
) -> tuple[Bool[Array, "t l"], Bool[Array, "t 1"]]:
    """Which keys each query of the tile attends to, and which queries are real tokens."""
    length, i = segments.shape[2], pl.program_id(2)
    keys = segments[0]
    queries = segments[0, :, pl.ds(i * t, t)].reshape(t, 1)
    visible = keys > 0
    if config.packed:
        visible &= queries == keys
    if config.windowed:
        query_at, key_at = (lax.broadcasted_iota(jnp.int32, (t, length), n) for n in range(2))
        visible &= jnp.abs(key_at - i * t - query_at) <= scalars[4].astype(jnp.int32)
    return jnp.broadcast_to(visible, (t, length)), queries > 0


def _softmax_parts(
    q: Float[Array, "t k"], k: Float[Array, "l k"], visible: Bool[Array, "t l"]
) -> tuple[Float[Array, "t l"], Float[Array, "t 1"]]:
    """The numerators of the softmax and their sum."""
    scores = dot(q * q.shape[1] ** -0.5, k, NT)
    # The most negative finite number instead of -inf: a row without any key stays finite.
    scores = jnp.where(visible, scores, jnp.finfo(jnp.float32).min)
    weights = jnp.exp(scores - jnp.max(scores, axis=1, keepdims=True))
    return weights, jnp.sum(weights, axis=1, keepdims=True)


def dot(a: jax.Array, b: jax.Array, dims: Any = (((1,), (0,)), ((), ()))) -> jax.Array:
    return lax.dot_general(a, b, dims, preferred_element_type=jnp.float32)


def _keep_mask(
    config: KernelConfig, scalars: Ref, head: int, shape: tuple[int, ...], length: int
) -> Bool[Array, "t l"]:
    """Which probabilities dropout keeps.

    Each random word decides for one key and four queries, 8 apart: words and decisions then have
    the same layout in the 8 sublanes of a vector register, and no data moves.
    """
    _, t, width = shape
    row = scalars[2] + pl.program_id(0).astype(jnp.uint32)
    head_index = scalars[3] + (pl.program_id(1) * (width // config.width) + head).astype(jnp.uint32)
    first, second = (hash_word(hash_word(scalars[n] + row) + head_index) for n in range(2))
    word_shape = (t // 32, 8, length)
    group, sublane, key = (lax.broadcasted_iota(jnp.uint32, word_shape, n) for n in range(3))
    group += pl.program_id(2).astype(jnp.uint32) * (t // 32)
    word = hash_word(((group * 8 + sublane) * length + key) ^ first, second)
    shift = lax.broadcasted_iota(jnp.uint32, (1, 4, 1, 1), 1) * 8
    decisions = (word[:, None] >> shift) & 255
    return (decisions < config.keep).reshape(t, length)


def hash_word(x: UInt32[Array, "*s"], key: Any = 0) -> UInt32[Array, "*s"]:
    """A permutation of 32-bit words in which flipping any bit of `x` flips each bit of the result
    with a probability close to 1/2 (lowbias32, github.com/skeeto/hash-prospector). `key` selects
    one of many permutations, so that the words of one head never are those of another head in a
    different order."""
    x = (x ^ (x >> 16)) * jnp.uint32(0x7FEB352D) ^ key
    x = (x ^ (x >> 15)) * jnp.uint32(0x846CA68B)
    return x ^ (x >> 16)
