"""Flash attention for NVIDIA GPUs with the dropout of flash.py, in Triton through Pallas.

    forward         q k v -> out, and the logarithm of each softmax's denominator, float32 [b h l]
    backward        two kernels, which recompute the probabilities: one for dk and dv, one for dq

No array of [l, l] reaches memory, with or without dropout, for padded rows, packed rows and
windows: blocks of keys outside of a query's segment or window are skipped. cuDNN's own dropout is
no function of (seed, step, row, place), so a run with it could be neither replayed nor continued on
another mesh. On a CPU the same kernels are interpreted, for tests.

Axes: b batch, l tokens, h heads, k head width.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int

from bert_jax.distributed.constraints import platform
from bert_jax.model.attention import flash_gpu_kernel as kernels
from bert_jax.model.attention.flash_gpu_kernel import BlockConfig
from bert_jax.model.attention.flash_kernel import LANES, dropout_scalars, with_offset
from bert_jax.model.attention.mask import AttentionMask
from bert_jax.model.attention.shard_map import AttentionShards, KernelCost

BLOCK = 64  # rows are padded to a multiple
WIDTHS = (16, 32, 64, 128)  # of a head: powers of two that fit in registers


class Call(NamedTuple):
    """What distinguishes one kernel's calls: its blocks, which are of 64 if they do not divide the
    row, and how a GPU runs it."""

    kernel: Callable[..., None]
    by_queries: bool  # the grid's blocks are of queries, or else of keys
    queries: int
    keys: int
    warps: int
    stages: int


# The fastest of 54 on an H200 at BERT-base's shape (benchmarks/attention_speed.py --blocks).
FORWARD = Call(kernels.attend, True, 128, 64, 8, 3)
KEY_GRADIENTS = Call(kernels.key_gradients, False, 64, 64, 4, 3)
QUERY_GRADIENTS = Call(kernels.query_gradients, True, 128, 64, 8, 3)


def attend(
    q: Float[Array, "b h l k"],
    k: Float[Array, "b h l k"],
    v: Float[Array, "b h l k"],
    mask: AttentionMask,
    rate: float = 0.0,
    key: jax.Array | None = None,
    window: int | Int[Array, ""] | None = None,
) -> Float[Array, "b h l k"]:
    """See `attention`; the window may be traced. The output is zero at padding. The dropout rate is
    rounded to a 256th, as in `layers.dropout`. Segments of packed rows must be runs.

    ValueError: on a TPU, or a head width that is not 16, 32, 64 or 128.
    """
    if reason := unsupported_reason(platform(), q.shape[-1]):
        raise ValueError(reason)
    length = q.shape[2]
    keep, scalars = dropout_scalars(key, rate, window)
    pad = -length % BLOCK

    def rows(x: jax.Array) -> jax.Array:
        return jnp.pad(x.swapaxes(1, 2), ((0, 0), (0, pad), (0, 0), (0, 0)))

    law = length + -length % LANES  # dropout counts places in rows padded as on a TPU
    config = BlockConfig(law, BLOCK, BLOCK, mask.packed, window is not None, keep)
    segments = jnp.pad(mask.segments, ((0, 0), (0, pad)))
    out: jax.Array = _attend(config, rows(q), rows(k), rows(v), segments, scalars)
    return out[:, :length].swapaxes(1, 2)


def unsupported_reason(platform: str, width: int) -> str | None:
    """Why the kernels do not run such heads, and what to change; None if they do."""
    if platform not in ("cpu", "gpu", "cuda"):
        return f"attention flash needs an NVIDIA GPU, found {platform}: choose run.attention auto"
    if width not in WIDTHS:
        return (
            f"attention flash on a GPU takes head widths {', '.join(map(str, WIDTHS))}, "
            f"found {width}: change encoder.heads, or choose run.attention xla"
        )
    return None


def kernel_cost(
    b: int, h: int, length: int, k: int, itemsize: int = 2, backward: bool = False
) -> KernelCost:
    """The cost of attention over full rows, forward or backward.

    Forward: two matrix products of l x l x k; it reads q k v and writes out, and the logarithms.
    Backward: seven, since both kernels recompute the logits and the probabilities' gradient; each
    reads q k v and the cotangent of out, and they write dq dk dv.
    """
    arrays, vectors, products = (11, 4, 7) if backward else (4, 1, 2)
    return KernelCost(
        flops=2 * products * b * h * length**2 * k,
        bytes=arrays * b * h * length * k * itemsize + 4 * vectors * b * h * length,
        exponentials=(2 if backward else 1) * b * h * length**2,
    )


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(
    config: BlockConfig,
    q: Float[Array, "b l h k"],
    k: Float[Array, "b l h k"],
    v: Float[Array, "b l h k"],
    segments: Int[Array, "b l"],
    scalars: jax.Array,
) -> Any:
    return _forward(config, q, k, v, segments, scalars)[0]


def _attend_fwd(config: BlockConfig, *args: jax.Array) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    out, log_total = _forward(config, *args)
    return out, (*args, out, log_total)


def _attend_bwd(
    config: BlockConfig, residuals: tuple[jax.Array, ...], d_out: jax.Array
) -> tuple[Any, ...]:
    q, k, v, segments, scalars, out, log_total = residuals
    delta = jnp.einsum("blhk,blhk->bhl", out, d_out, preferred_element_type=jnp.float32)
    arrays = (q, k, v, d_out, log_total, delta)
    dk, dv = _map_shards(config, KEY_GRADIENTS, (k, v), arrays, segments, scalars)
    (dq,) = _map_shards(config, QUERY_GRADIENTS, (q,), arrays, segments, scalars)
    return dq, dk, dv, None, None


_attend.defvjp(_attend_fwd, _attend_bwd)


def _forward(
    config: BlockConfig, *args: jax.Array
) -> tuple[Float[Array, "b l h k"], Float[Array, "b h l"]]:
    q, k, v, segments, scalars = args
    b, length, h, _ = q.shape
    log_total = jax.ShapeDtypeStruct((b, h, length), jnp.float32)
    out, log_total = _map_shards(config, FORWARD, (q, log_total), (q, k, v), segments, scalars)
    return out, log_total


def _map_shards(
    config: BlockConfig,
    call: Call,
    outputs: tuple[Any, ...],
    arrays: tuple[jax.Array, ...],
    segments: jax.Array,
    scalars: jax.Array,
) -> tuple[jax.Array, ...]:
    """The kernel on each device's rows and heads. Rows and heads keep their indices in the whole
    batch, so dropout is the same on every mesh. `outputs` have the shapes of the results."""
    b, _, h, _ = arrays[0].shape
    shards = AttentionShards.of(b, h)

    def local(segments: jax.Array, scalars: jax.Array, *arrays: jax.Array) -> tuple[jax.Array, ...]:
        b, _, h, _ = arrays[0].shape
        row, head = shards.first_index(b, h)
        scalars = with_offset(scalars, row, head)
        shapes = [_shard_shape(x, b, h) for x in outputs]
        return lax.platform_dependent(
            *(scalars, segments, *arrays),
            cuda=partial(_call, config, call, shapes, False),
            default=partial(_call, config, call, shapes, True),
        )

    specs = [_partition(shards, x) for x in (*arrays, *outputs)]
    ins, outs = specs[: len(arrays)], specs[len(arrays) :]
    return shards.map(local, (P(shards.rows, None), P(None), *ins), tuple(outs))(
        segments, scalars, *arrays
    )


def _partition(shards: AttentionShards, x: Any) -> P:
    """[b l h k], or [b h l]."""
    heads = (None, shards.heads, None) if x.ndim == 4 else (shards.heads, None)
    return P(shards.rows, *heads)


def _shard_shape(x: Any, b: int, h: int) -> jax.ShapeDtypeStruct:
    _, *rest = x.shape
    shape = (b, rest[0], h, rest[2]) if x.ndim == 4 else (b, h, rest[1])
    return jax.ShapeDtypeStruct(shape, x.dtype)


def _call(
    config: BlockConfig,
    call: Call,
    outputs: list[jax.ShapeDtypeStruct],
    interpret: bool,
    scalars: jax.Array,
    segments: jax.Array,
    *arrays: jax.Array,
) -> tuple[jax.Array, ...]:
    # Deprecated since jax 0.11: when it goes, all but this kernel still works.
    from jax.experimental.pallas import triton

    b, length, h, width = arrays[0].shape
    queries, keys = (n if length % n == 0 else BLOCK for n in (call.queries, call.keys))
    config = config._replace(queries=queries, keys=keys)
    size = queries if call.by_queries else keys
    whole = {4: pl.BlockSpec((None, length, None, width), lambda r, n, _: (r, 0, n, 0)),
             3: pl.BlockSpec((None, None, length), lambda r, n, _: (r, n, 0))}  # fmt: skip
    block = {4: pl.BlockSpec((None, size, None, width), lambda r, n, i: (r, i, n, 0)),
             3: pl.BlockSpec((None, None, size), lambda r, n, i: (r, n, i))}  # fmt: skip
    # q k v d_out log_total delta: those of the grid's side are blocks, the others whole rows
    of_queries = (True, False, False, True, True, True)
    in_specs = [
        (block if is_query == call.by_queries else whole)[x.ndim]
        for x, is_query in zip(arrays, of_queries, strict=False)
    ]
    return pl.pallas_call(
        partial(call.kernel, config),
        grid=(b, h, length // size),
        in_specs=[
            pl.BlockSpec((scalars.size,), lambda *_: (0,)),
            pl.BlockSpec((None, None, 2), lambda r, _, i: (r, i, 0)),
            pl.BlockSpec((None, length), lambda r, *_: (r, 0)),
            *in_specs,
        ],
        out_specs=[block[len(x.shape)] for x in outputs],
        out_shape=outputs,
        compiler_params=triton.CompilerParams(num_warps=call.warps, num_stages=call.stages),
        interpret=interpret,
        name=f"attention_{call.kernel.__name__}",
    )(scalars, visible_range(segments, config.packed, size), segments, *arrays)


def visible_range(segments: Int[Array, "b l"], packed: bool, size: int) -> Int[Array, "b n 2"]:
    """The first token and the end of the tokens that share a segment with any real token of each
    block of `size` tokens; both 0 if the block has none."""
    b, length = segments.shape
    at = jnp.arange(length, dtype=jnp.int32)
    is_real = segments > 0
    if packed:
        change = segments[:, 1:] != segments[:, :-1]
        first = jnp.pad(change, ((0, 0), (1, 0)), constant_values=True)
        last = jnp.pad(change, ((0, 0), (0, 1)), constant_values=True)
        start = lax.cummax(jnp.where(first, at, 0), axis=1)
        end = lax.cummin(jnp.where(last, at, length), axis=1, reverse=True) + 1
    else:
        start = jnp.zeros_like(segments)
        end = jnp.broadcast_to(
            jnp.max(jnp.where(is_real, at + 1, 0), axis=1, keepdims=True), segments.shape
        )
    start = jnp.where(is_real, start, length).reshape(b, -1, size).min(axis=2)
    end = jnp.where(is_real, end, 0).reshape(b, -1, size).max(axis=2)
    return jnp.stack([jnp.minimum(start, end), end], axis=2).astype(jnp.int32)
