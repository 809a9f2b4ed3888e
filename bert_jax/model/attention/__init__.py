"""Scaled dot-product attention over whole heads: one definition, five backends.

    xla      any platform; stores all attention weights for the gradient
    blocked  any platform, long rows; computes the weights again for the gradient. Dropout of xla
    flash    our own kernels, with dropout; store no weights. TPU: rows of up to 1,024 tokens.
             NVIDIA GPUs: heads of 16, 32, 64 or 128
    splash   TPU, long rows, no dropout
    cudnn    NVIDIA GPUs, 16-bit, no dropout

Axes: b batch, l tokens, h heads, k head width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from bert_jax.distributed.constraints import GPUS, platform
from bert_jax.model.attention import blocked, cudnn, flash, flash_gpu, splash, xla
from bert_jax.model.attention.mask import AttentionMask

__all__ = ["BACKENDS", "AttentionMask", "attention"]

BACKENDS: dict[str, Callable[..., jax.Array]] = {
    "xla": xla.attend,
    "blocked": blocked.attend,
    "flash": flash.attend,
    "splash": splash.attend,
    "cudnn": cudnn.attend,
}

SIXTEEN_BITS = (jnp.bfloat16, jnp.float16)
UNLIMITED = 1 << 30  # a window longer than any row


def attention(
    q: Float[Array, "b h l k"],
    k: Float[Array, "b h l k"],
    v: Float[Array, "b h l k"],
    mask: AttentionMask,
    rate: float = 0.0,
    key: jax.Array | None = None,
    window: int | None = None,
    backend: str = "auto",
    is_global: Bool[Array, ""] | None = None,
) -> Float[Array, "b h l k"]:
    """The attention output of every query over the keys that `mask` allows, at a distance of at
    most `window`.

    The softmax is computed in float32 for inputs of any type. Given a `key`, a share `rate` of
    the probabilities is dropped (Vaswani et al. 2017, section 3.2; bert/modeling.py
    attention_layer). If `is_global` is given and true, the window does not apply: scanned layers
    differ in this value only.
    ValueError: the backend cannot do this; the message says what to change.
    """
    rate = 0.0 if key is None else rate
    if backend == "auto":
        has_sizes = not mask.packed and window is None
        backend = choose_backend(
            platform(), q.shape[-2], q.shape[-1], q.dtype, rate, window, has_sizes=has_sizes
        )
    if backend == "blocked":
        return blocked.attend(q, k, v, mask, rate, key, window, is_global)
    attend = BACKENDS[backend]
    if backend == "flash" and platform() in GPUS:
        attend = flash_gpu.attend
    if is_global is None or window is None:
        return attend(q, k, v, mask, rate, key, window)
    if backend in ("xla", "flash"):  # a traced window needs no second branch
        return attend(q, k, v, mask, rate, key, jnp.where(is_global, UNLIMITED, window))

    def attend_within(window: int | None) -> Callable[..., jax.Array]:
        return lambda q, k, v: attend(q, k, v, mask, rate, key, window)

    return jax.lax.cond(is_global, attend_within(None), attend_within(window), q, k, v)


def choose_backend(
    platform: str,
    length: Any,
    width: int,
    dtype: Any,
    rate: float,
    window: int | None = None,
    *,
    has_sizes: bool = True,
) -> str:
    """The backend that moves the least memory among those that support the inputs. `has_sizes`:
    padding alone hides keys, so that a number per row says which; anything else cuDNN takes as a
    mask of [b, 1, l, l]."""
    # libtpu 0.0.42 crashes while it compiles the 16-bit products of global blocks with dropout.
    compiles = platform != "tpu" or dtype not in SIXTEEN_BITS
    plain = "blocked" if compiles and blocked.is_worthwhile(length, window) else "xla"
    if platform == "tpu" and length % 128 == 0:
        if length <= flash.MAX_LENGTH:
            return "flash"
        return "splash" if not rate else plain
    if has_sizes and not cudnn.unsupported_reason(platform, dtype, width, rate):
        return "cudnn"
    if platform in GPUS and dtype in SIXTEEN_BITS:
        return plain if flash_gpu.unsupported_reason(platform, width) else "flash"
    return plain
