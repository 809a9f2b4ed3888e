"""Attention in blocks of queries, compiled by XLA: any platform, any dropout rate, long rows.

    local layer     each block of queries against its own and both neighboring blocks of keys, all
                    blocks at once: memory grows with l
    global layer    one block of queries after the other against all keys: [t, l] at a time

A block is as wide as the window, so its queries see no further than its neighbors. Every softmax is
over all keys that its query sees, as in `xla`, and dropout drops what it drops there: the decision
for a query and a key is read from the same random word. No weights are stored; the gradient
computes them again. So a choice between local and global in the middle of scanned layers
(`is_global`) keeps the residuals of neither: both have q, k and v alone.

Axes: b batch, l tokens, h heads, k head width, n blocks, t queries and s keys of a block,
w random words, of four keys each.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, UInt32

from bert_jax.distributed.constraints import RandomWords
from bert_jax.model.attention.mask import AttentionMask
from bert_jax.model.attention.xla import weighted_values
from bert_jax.model.layers import drop_by_words

MAX_PLAIN = 1024  # tokens; longer rows would hold too many weights at once
MIN_BLOCK = 64  # tokens of a local block; narrower ones would leave matrix units idle
GLOBAL_BLOCK = 128  # queries of a block that attends to the whole row
WORD = 4  # decisions in a random word; blocks are multiples


class Config(NamedTuple):
    """The compile-time parameters."""

    packed: bool
    window: int | None
    rate: float


class Inputs(NamedTuple):
    """What the gradient needs besides q, k and v."""

    segments: Int[Array, "b l"]
    words: RandomWords | None  # None: no dropout
    is_global: Bool[Array, ""] | None


def attend(
    q: Float[Array, "b h l k"],
    k: Float[Array, "b h l k"],
    v: Float[Array, "b h l k"],
    mask: AttentionMask,
    rate: float = 0.0,
    key: jax.Array | None = None,
    window: int | None = None,
    is_global: Bool[Array, ""] | None = None,
) -> Float[Array, "b h l k"]:
    """See `attention`; the window may not be traced, `is_global` may. Outputs at padding are finite
    and differ from those of `xla`, which are as meaningless."""
    b, h, length, _ = q.shape
    words = None
    if key is not None and rate:
        words = RandomWords.of(key, (b, h, length, math.ceil(length / WORD)))
    config = Config(mask.packed, window, rate)
    out: jax.Array = _attend(config, q, k, v, Inputs(mask.segments, words, is_global))
    return out


def is_worthwhile(length: Any, window: int | None) -> bool:
    """Whether blocks need less memory and time than all weights at once. False for the symbolic
    lengths of an export, which cannot be cut into blocks."""
    if not isinstance(length, int):
        return False
    return length > MAX_PLAIN or (window is not None and length > 4 * local_block(window))


def local_block(window: int) -> int:
    """The number of tokens of a block of a local layer: at least the window."""
    return max(MIN_BLOCK, math.ceil(window / 32) * 32)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(config: Config, q: Any, k: Any, v: Any, x: Inputs) -> Any:
    return _either(config, x, _whole, _local)(q, k, v)


def _attend_fwd(config: Config, *args: Any) -> tuple[jax.Array, tuple[Any, ...]]:
    return _attend(config, *args), args


def _attend_bwd(config: Config, residuals: tuple[Any, ...], d_out: jax.Array) -> tuple[Any, ...]:
    q, k, v, x = residuals
    gradients = _either(config, x, _whole_gradients, _local_gradients)
    return (*gradients(q, k, v, d_out), None)


_attend.defvjp(_attend_fwd, _attend_bwd)


def _either(config: Config, x: Inputs, whole: Any, local: Any) -> Any:
    """`whole` or `local`, called with these parameters."""
    if config.window is None:
        return partial(whole, config, x)
    if x.is_global is None:
        return partial(local, config, x)
    branches = partial(whole, config, x), partial(local, config, x)
    return lambda *arrays: lax.cond(x.is_global, *branches, *arrays)


# ---- local layers


def _local(
    config: Config,
    x: Inputs,
    q: Float[Array, "b h l k"],
    k: Float[Array, "b h l k"],
    v: Float[Array, "b h l k"],
) -> Float[Array, "b h l k"]:
    assert config.window is not None
    t, length = local_block(config.window), q.shape[2]
    q, k, v = (_blocks(a, t, axis=2) for a in (q, k, v))
    segments = _blocks(x.segments, t, axis=1)
    visible = _visible(config, segments, _with_neighbors(segments, 1))
    at, to = jnp.arange(t), jnp.arange(3 * t) - t
    visible &= jnp.abs(at[:, None] - to) <= config.window
    n = q.shape[2]
    words = None
    if x.words is not None:
        queries = jnp.arange(n * t).reshape(n, t, 1)
        first = (jnp.arange(n)[:, None, None] - 1) * (t // WORD)
        words = x.words.at(queries, first + jnp.arange(3 * t // WORD))
    k, v = (_with_neighbors(a, 2) for a in (k, v))
    out = weighted_values(q, k, v, visible[:, None], partial(_drop, config, words))
    return out.reshape(*out.shape[:2], n * t, -1)[:, :, :length]


def _local_gradients(
    config: Config, x: Inputs, q: jax.Array, k: jax.Array, v: jax.Array, d_out: jax.Array
) -> tuple[jax.Array, ...]:
    return tuple(jax.vjp(partial(_local, config, x), q, k, v)[1](d_out))


def _blocks(a: jax.Array, size: int, axis: int) -> jax.Array:
    """[.. l ..] -> [.. n t ..], padded with zeros, which are padding for segments, too."""
    widths = [(0, 0)] * a.ndim
    widths[axis] = 0, -a.shape[axis] % size
    a = jnp.pad(a, widths)
    return a.reshape(*a.shape[:axis], -1, size, *a.shape[axis + 1 :])


def _with_neighbors(a: jax.Array, axis: int) -> jax.Array:
    """[.. n t ..] -> [.. n 3t ..]: every block after the one before it, and before the next."""
    n, widths = a.shape[axis], [(0, 0)] * a.ndim
    widths[axis] = 1, 1
    a = jnp.pad(a, widths)
    parts = [lax.slice_in_dim(a, i, i + n, axis=axis) for i in range(3)]
    return jnp.concatenate(parts, axis=axis + 1)


# ---- global layers


def _whole(
    config: Config,
    x: Inputs,
    q: Float[Array, "b h l k"],
    k: Float[Array, "b h l k"],
    v: Float[Array, "b h l k"],
) -> Float[Array, "b h l k"]:
    outs = lax.map(lambda block: _block(config, x, block, k, v), _query_blocks(x, q))
    return _joined(outs, q.shape[2])


def _whole_gradients(
    config: Config, x: Inputs, q: jax.Array, k: jax.Array, v: jax.Array, d_out: jax.Array
) -> tuple[jax.Array, ...]:
    """Sums over blocks are in float32."""

    def step(sums: tuple[jax.Array, ...], inputs: Any) -> tuple[tuple[jax.Array, ...], jax.Array]:
        block, d_block = inputs

        def f(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
            return _block(config, x, block._replace(q=q), k, v)

        dq, *parts = jax.vjp(f, block.q, k, v)[1](d_block)
        return tuple(a + b.astype(a.dtype) for a, b in zip(sums, parts, strict=True)), dq

    zeros = tuple(jnp.zeros(a.shape, jnp.float32) for a in (k, v))
    d_blocks = jnp.moveaxis(_blocks(d_out, GLOBAL_BLOCK, axis=2), 2, 0)
    sums, dq = lax.scan(step, zeros, (_query_blocks(x, q), d_blocks))
    dk, dv = (a.astype(b.dtype) for a, b in zip(sums, (k, v), strict=True))
    return _joined(dq, q.shape[2]), dk, dv


class QueryBlock(NamedTuple):
    """A block of queries; stacked along axis 0 for a scan."""

    q: Float[Array, "*n b h t k"]
    segments: Int[Array, "*n b t"]
    at: Int[Array, "*n t"]


def _query_blocks(x: Inputs, q: Float[Array, "b h l k"]) -> QueryBlock:
    q = jnp.moveaxis(_blocks(q, GLOBAL_BLOCK, axis=2), 2, 0)
    segments = jnp.moveaxis(_blocks(x.segments, GLOBAL_BLOCK, axis=1), 1, 0)
    return QueryBlock(q, segments, jnp.arange(q.shape[0] * GLOBAL_BLOCK).reshape(-1, GLOBAL_BLOCK))


def _block(
    config: Config, x: Inputs, block: QueryBlock, k: jax.Array, v: jax.Array
) -> Float[Array, "b h t k"]:
    words = None
    if x.words is not None:
        num_words = math.ceil(k.shape[2] / WORD)
        words = x.words.at(block.at[:, None], jnp.arange(num_words))
    visible = _visible(config, block.segments, x.segments)
    return weighted_values(block.q, k, v, visible[:, None], partial(_drop, config, words))


def _joined(blocks: Float[Array, "n b h t k"], length: int) -> Float[Array, "b h l k"]:
    joined = jnp.moveaxis(blocks, 0, 2)
    return joined.reshape(*joined.shape[:2], -1, joined.shape[-1])[:, :, :length]


# ---- both


def _visible(
    config: Config, queries: Int[Array, "b *n t"], keys: Int[Array, "b *n s"]
) -> Bool[Array, " b *n #t s"]:
    """Which keys the segments let each query see."""
    keys = keys[..., None, :]
    visible = keys > 0
    return visible & (keys == queries[..., None]) if config.packed else visible


def _drop(
    config: Config, words: UInt32[Array, "b h *n t w"] | None, weights: jax.Array
) -> jax.Array:
    return weights if words is None else drop_by_words(weights, config.rate, words)
