"""Compare an attention kernel with plain attention on this machine, dropout and gradients included.

A kernel that a new driver or chip compiles wrongly would train on without an error. So a run on an
accelerator compares the Pallas kernel that it uses once, before its first step. A backend that
cannot do what a run asks of it is refused before the run folder is made.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool

from bert_jax.config import Contrastive, Encoder, Experiment, ReplacedTokens, Supervised
from bert_jax.distributed.constraints import GPUS, platform
from bert_jax.model.attention import attention, choose_backend, flash, flash_gpu, splash, xla
from bert_jax.model.attention.mask import AttentionMask
from bert_jax.model.layers import keep_threshold_u8

Attend = Callable[..., jax.Array]

TOLERANCE = 2**-6  # of bfloat16 results against float32, relative, in norm
ROWS, HEADS = 4, 2
# Tokens of the rows: three blocks of 64, and of 128, the first no multiple of 128; on a TPU 896 and
# 1,024, which flash and splash cut into 7 tiles of 128 and 2 of 512.
LENGTHS = {"gpu": (192, 384), "tpu": (896, 1024)}


def check_attention(config: Experiment, packed: bool) -> None:
    """Check that the backend in `run.attention` can do what the run asks of it, before the run
    folder is made; on an accelerator also that its kernel computes what plain attention does.

    ValueError: it cannot, or does not; the message says what to change.
    """
    if config.run.attention != "auto":
        for encoder in _encoders(config):
            for stage in config.stages:
                _trace(encoder, config, stage.length or encoder.max_length, packed)
    check_kernels(config, packed)


def _encoders(config: Experiment) -> list[Encoder]:
    """The encoders of a run: ELECTRA has two, whose heads may have other widths."""
    objective = config.objective
    if not isinstance(objective, ReplacedTokens):
        return [config.encoder]
    return [config.encoder, objective.generator(config.encoder)]


def _trace(encoder: Encoder, config: Experiment, length: int, packed: bool) -> None:
    """Trace attention over one row, as in a training step; nothing is compiled."""
    shape = (1, encoder.heads, length, encoder.hidden_size // encoder.heads)
    q = jax.ShapeDtypeStruct(shape, jnp.dtype(config.run.dtype))
    segments = jax.ShapeDtypeStruct((1, length), jnp.int32)
    key = jax.random.key(0) if encoder.attention_dropout else None

    def attend(q: Any, segments: Any) -> jax.Array:
        mask = AttentionMask(segments, packed)
        rate, backend = encoder.attention_dropout, config.run.attention
        return attention(q, q, q, mask, rate, key, encoder.window, backend)

    jax.eval_shape(attend, q, segments)


def check_kernels(config: Experiment, packed: bool) -> None:
    """Compare each Pallas kernel that this run uses on a GPU or TPU with plain attention: a few
    seconds.

    ValueError: they differ by more than bfloat16 explains.
    """
    kind = "gpu" if platform() in GPUS else platform()
    if kind not in LENGTHS:
        return
    kernels = {"flash": (flash if kind == "tpu" else flash_gpu).attend, "splash": splash.attend}
    masks = [example_mask("packed" if packed else "padded", ROWS, n) for n in LENGTHS[kind]]
    sizes = {(e.head_size, e.attention_dropout, e.window) for e in _encoders(config)}
    for width, rate, window in sizes:
        for backend in _backends(config, width, rate, window, packed) & kernels.keys():
            attend = kernels[backend]
            error = max(kernel_error(attend, width, HEADS, m, rate, window) for m in masks)
            if not error < TOLERANCE:
                raise ValueError(
                    f"attention {backend} differs from plain attention on "
                    f"{jax.devices()[0].device_kind} by {error:.3g} (at most {TOLERANCE:.3g} "
                    "expected): set run.attention xla, and report it with the versions of jax and "
                    "the driver"
                )


def _backends(
    config: Experiment, width: int, rate: float, window: int | None, packed: bool
) -> set[str]:
    """The backends of the rows of all stages."""
    if config.run.attention != "auto":
        return {config.run.attention}
    dtype, has_sizes = jnp.dtype(config.run.dtype), not packed and window is None
    lengths = {stage.length or config.encoder.max_length for stage in config.stages}
    if isinstance(config.objective, Supervised | Contrastive):  # rows are padded to many lengths
        lengths |= {min(n, flash.MAX_LENGTH) // 128 * 128 or n for n in lengths}
    return {
        choose_backend(platform(), length, width, dtype, rate, window, has_sizes=has_sizes)
        for length in lengths
    }


def kernel_error(
    attend: Attend, width: int, heads: int, mask: AttentionMask, rate: float, window: int | None
) -> float:
    """The largest relative difference, in norm, between a kernel in bfloat16 and plain attention in
    float32: the output at real tokens and the gradients of q k v, for random inputs. With dropout,
    plain attention drops what the kernel drops. inf: a result that is not finite, or a share of
    dropped probabilities that is not the rate's."""

    @jax.jit  # one program, not one per operation
    def compare(segments: jax.Array) -> tuple[jax.Array, jax.Array]:
        masked = AttentionMask(segments, mask.packed)
        return _errors(attend, width, heads, masked, rate, window)

    errors, share_is_right = jax.device_get(compare(mask.segments))
    return float(max(errors)) if share_is_right and np.isfinite(errors).all() else float("inf")


def _errors(
    attend: Attend, width: int, heads: int, mask: AttentionMask, rate: float, window: int | None
) -> tuple[jax.Array, Bool[Array, ""]]:
    """The relative differences of the output and the three gradients, and whether the share of
    dropped probabilities is right."""
    b, length = mask.segments.shape
    keys = jax.random.split(jax.random.key(length), 5)
    q, k, v, weight = (jax.random.normal(key, (b, heads, length, width)) for key in keys[:4])
    key = keys[4] if rate else None
    is_real = (mask.segments > 0)[:, None, :, None]
    keep = kept(attend, q.shape, mask, rate, key, window) if rate else None

    def plain(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
        if keep is None:
            return xla.attend(q, k, v, mask, 0.0, None, window)
        logits = jnp.einsum("bhqk,bhsk->bhqs", q, k) * width**-0.5
        visible = mask.to_bool(window)[:, None]
        weights = jnp.where(visible, jax.nn.softmax(jnp.where(visible, logits, -1e30)), 0)
        dropped = jnp.where(keep, weights * (256 / keep_threshold_u8(rate)), 0)
        return jnp.einsum("bhqs,bhsk->bhqk", dropped, v)

    def results(f: Attend, dtype: Any) -> tuple[jax.Array, ...]:
        def loss(*qkv: jax.Array) -> tuple[jax.Array, jax.Array]:
            out = jnp.where(is_real, f(*(x.astype(dtype) for x in qkv)), 0)
            return jnp.sum(out.astype(jnp.float32) * weight), out

        gradients, out = jax.grad(loss, (0, 1, 2), has_aux=True)(q, k, v)
        return out, *gradients

    half = results(lambda *qkv: attend(*qkv, mask, rate, key, window), jnp.bfloat16)
    with jax.default_matmul_precision("highest"):
        exact = results(plain, jnp.float32)
    errors = [
        jnp.linalg.norm(a.astype(jnp.float32) - e) / jnp.linalg.norm(e)
        for a, e in zip(half, exact, strict=True)
    ]
    right = jnp.array(True) if keep is None else _share_is_right(keep, mask, rate, window)
    return jnp.stack(errors), right


def kept(
    attend: Attend,
    shape: tuple[int, ...],
    mask: AttentionMask,
    rate: float,
    key: jax.Array | None,
    window: int | None,
) -> Bool[Array, "b h l s"]:
    """Whether dropout keeps each probability, for q of a shape [b h l k]. With values that are
    one-hot over k keys at a time, the outputs are these keys' probabilities."""
    *_, length, width = shape
    zeros, place = jnp.zeros(shape), jnp.arange(length)[:, None]

    def probabilities(start: jax.Array) -> jax.Array:
        one_hot = (place == start + jnp.arange(width)).astype(jnp.float32)
        return attend(zeros, zeros, jnp.broadcast_to(one_hot, shape), mask, rate, key, window) > 0

    columns = jax.lax.map(probabilities, jnp.arange(0, length, width))
    return jnp.concatenate(list(columns), axis=-1)[..., :length]


def _share_is_right(
    keep: jax.Array, mask: AttentionMask, rate: float, window: int | None
) -> Bool[Array, ""]:
    """Whether the dropped share of what real tokens attend to is within six standard errors."""
    visible = mask.to_bool(window) & (mask.segments > 0)[:, :, None]
    seen = jnp.broadcast_to(visible[:, None], keep.shape)
    count = jnp.sum(seen)
    dropped = jnp.sum(seen & ~keep) / count
    expected = 1 - keep_threshold_u8(rate) / 256
    return abs(dropped - expected) < 6 * jnp.sqrt(expected * (1 - expected) / count)


def example_mask(kind: str, b: int, length: int) -> AttentionMask:
    """Full rows; padded: rows of up to four sizes, the last one with a single token; packed: the
    same with four texts in a full row."""
    at, sizes = np.arange(length), np.array([length, length - 9, length // 3, 1])[:b, None]
    if kind == "full":
        return AttentionMask(jnp.ones((b, length), jnp.int32), packed=False)
    texts = 1 + 4 * at // length if kind == "packed" else np.ones(length, int)
    return AttentionMask(jnp.asarray(texts * (at < sizes), jnp.int32), kind == "packed")
