"""What flash.py computes of one row, a few heads and a tile of queries, forward and backward.

All scores of the tile lie in fast memory at once. Nothing is kept between the two but q k v: the
backward kernel makes the probabilities again, and the same ones are dropped, for what is dropped
is a function of the place and no state.

Axes: l keys, t queries of the tile, k head width; heads lie side by side, `n k` of them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jaxtyping import Array, Bool, Float, UInt32

Ref = Any  # a reference into fast memory, which is read and written by indexing
NT = (((1,), (1,)), ((), ()))  # a b^T
TN = (((0,), (0,)), ((), ()))  # a^T b


class KernelConfig(NamedTuple):
    """What is known when a kernel is compiled."""

    heads: int  # of the whole model
    width: int  # of a head
    packed: bool
    windowed: bool
    kept: int  # of 256 probabilities; 256: no dropout


def forward(
    law: KernelConfig, numbers: Ref, segments: Ref, q: Ref, k: Ref, v: Ref, out: Ref
) -> None:
    """out [1 t nk] of q [1 t nk], k and v [1 l nk], segments [1 1 l].

    `numbers` are two words of seed, the numbers of the first row and head on this device, and
    the window.
    """
    t, length, width = q.shape[1], k.shape[1], law.width
    seen, real = _seen(law, numbers, segments, t)
    made = []
    for head in range(q.shape[2] // width):
        at = pl.ds(head * width, width)
        weights, total = _exponentials(q[0, :, at], k[0, :, at], seen)
        if law.kept < 256:
            weights = jnp.where(_kept(law, numbers, head, q.shape, length), weights, 0)
        product = _dot(weights.astype(v.dtype), v[0, :, at])
        made.append(product * (256 / law.kept / total))
    out[0] = jnp.where(real, jnp.concatenate(made, axis=1), 0).astype(out.dtype)


def backward(
    law: KernelConfig,
    numbers: Ref,
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
    """dq [1 t nk] of the tile; dk and dv [1 l nk], which all tiles of a row add to, in float32."""
    t, length, width, i = q.shape[1], k.shape[1], law.width, pl.program_id(2)
    seen, real = _seen(law, numbers, segments, t)

    @pl.when(i == 0)
    def _() -> None:
        dk_sum[...] = jnp.zeros_like(dk_sum)
        dv_sum[...] = jnp.zeros_like(dv_sum)

    for head in range(q.shape[2] // width):
        at = pl.ds(head * width, width)
        weights, total = _exponentials(q[0, :, at], k[0, :, at], seen)
        weights = weights / total
        scaled = jnp.where(real, d_out[0, :, at].astype(jnp.float32) * (256 / law.kept), 0)
        scaled = scaled.astype(d_out.dtype)
        dropped, d_weights = weights, _dot(scaled, v[0, :, at], NT)
        if law.kept < 256:
            kept = _kept(law, numbers, head, q.shape, length)
            dropped, d_weights = jnp.where(kept, weights, 0), jnp.where(kept, d_weights, 0)
        dv_sum[:, at] += _dot(dropped.astype(v.dtype), scaled, TN)
        d_scores = weights * (d_weights - jnp.sum(weights * d_weights, axis=1, keepdims=True))
        d_scores = (d_scores * width**-0.5).astype(q.dtype)
        dq[0, :, at] = _dot(d_scores, k[0, :, at]).astype(dq.dtype)
        dk_sum[:, at] += _dot(d_scores, q[0, :, at], TN)

    @pl.when(i == pl.num_programs(2) - 1)
    def _() -> None:
        dk[0] = dk_sum[...].astype(dk.dtype)
        dv[0] = dv_sum[...].astype(dv.dtype)


def _seen(
    law: KernelConfig, numbers: Ref, segments: Ref, t: int
) -> tuple[Bool[Array, "t l"], Bool[Array, "t 1"]]:
    """Which keys each query of the tile sees, and which queries are no padding."""
    length, i = segments.shape[2], pl.program_id(2)
    keys = segments[0]
    mine = segments[0, :, pl.ds(i * t, t)].reshape(t, 1)
    seen = keys > 0
    if law.packed:
        seen &= mine == keys
    if law.windowed:
        query, key = (lax.broadcasted_iota(jnp.int32, (t, length), n) for n in range(2))
        seen &= jnp.abs(key - i * t - query) <= numbers[4].astype(jnp.int32)
    return jnp.broadcast_to(seen, (t, length)), mine > 0


def _exponentials(
    q: Float[Array, "t k"], k: Float[Array, "l k"], seen: Bool[Array, "t l"]
) -> tuple[Float[Array, "t l"], Float[Array, "t 1"]]:
    """A softmax before its division, and what to divide by."""
    scores = _dot(q * q.shape[1] ** -0.5, k, NT)
    # The most negative finite number, not -inf: a row with no key at all stays finite.
    scores = jnp.where(seen, scores, jnp.finfo(jnp.float32).min)
    weights = jnp.exp(scores - jnp.max(scores, axis=1, keepdims=True))
    return weights, jnp.sum(weights, axis=1, keepdims=True)


def _dot(a: jax.Array, b: jax.Array, dims: Any = (((1,), (0,)), ((), ()))) -> jax.Array:
    return lax.dot_general(a, b, dims, preferred_element_type=jnp.float32)


def _kept(
    law: KernelConfig, numbers: Ref, head: int, shape: tuple[int, ...], length: int
) -> Bool[Array, "t l"]:
    """Which probabilities dropout leaves.

    A random word decides four queries, 8 apart, for one key: words and decisions then lie in
    a vector register's 8 sublanes alike, and nothing is moved.
    """
    _, t, width = shape
    row = numbers[2] + pl.program_id(0).astype(jnp.uint32)
    heads = numbers[3] + (pl.program_id(1) * (width // law.width) + head).astype(jnp.uint32)
    first, second = (_mixed(_mixed(numbers[n] + row) + heads) for n in range(2))
    place = (t // 32, 8, length)
    group, sublane, key = (lax.broadcasted_iota(jnp.uint32, place, n) for n in range(3))
    group += pl.program_id(2).astype(jnp.uint32) * (t // 32)
    word = _mixed(((group * 8 + sublane) * length + key) ^ first, second)
    shift = lax.broadcasted_iota(jnp.uint32, (1, 4, 1, 1), 1) * 8
    decisions = (word[:, None] >> shift) & 255
    return (decisions < law.kept).reshape(t, length)


def _mixed(x: UInt32[Array, "*s"], key: Any = 0) -> UInt32[Array, "*s"]:
    """A permutation of 32-bit words in which every bit of `x` moves each bit of the result with
    a probability close to 1/2 (lowbias32, github.com/skeeto/hash-prospector); `key` picks one of
    many, so that two heads' words are never each other's in another order."""
    x = (x ^ (x >> 16)) * jnp.uint32(0x7FEB352D) ^ key
    x = (x ^ (x >> 15)) * jnp.uint32(0x846CA68B)
    return x ^ (x >> 16)
