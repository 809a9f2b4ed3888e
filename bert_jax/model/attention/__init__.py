"""Scaled dot-product attention over whole heads: one meaning, several ways to compute it.

    xla      xla.py      everywhere; keeps all weights for the gradient
    flash    flash.py    TPU, rows of up to 1,024 tokens: a row's head at a time, nothing kept
    splash   splash.py   TPU, long rows, without dropout
    cudnn    cudnn.py    NVIDIA GPUs, 16-bit, without dropout

Axes: b batch, l tokens, h heads, k head width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from bert_jax.distributed.constraints import platform
from bert_jax.model.attention import cudnn, flash, splash, xla
from bert_jax.model.attention.mask import AttentionMask

__all__ = ["BACKENDS", "AttentionMask", "attention"]

BACKENDS: dict[str, Callable[..., jax.Array]] = {
    "xla": xla.attend,
    "flash": flash.attend,
    "splash": splash.attend,
    "cudnn": cudnn.attend,
}

BEYOND = 1 << 30  # places: more than any row has


def attention(
    q: Float[Array, "b h l k"],
    k: Float[Array, "b h l k"],
    v: Float[Array, "b h l k"],
    sight: AttentionMask,
    rate: float = 0.0,
    key: jax.Array | None = None,
    window: int | None = None,
    backend: str = "auto",
    far: Bool[Array, ""] | None = None,
) -> Float[Array, "b h l k"]:
    """What every query sees of the keys in its sight, at most `window` places away.

    The softmax is float32 whatever the inputs are. `rate` of the probabilities is dropped when
    a `key` is given (Vaswani et al. 2017, section 3.2; bert/modeling.py attention_layer).
    `far`, where it is given and true, lifts the window: a scanned layer learns so whether it is
    a global one.
    ValueError: a backend that cannot do what it is asked, with what to change.
    """
    rate = 0.0 if key is None else rate
    if backend == "auto":
        backend = choice(platform(), q.shape[-2], q.shape[-1], q.dtype, rate)
    attend = BACKENDS[backend]
    if far is None or window is None:
        return attend(q, k, v, sight, rate, key, window)
    if backend in ("xla", "flash"):  # one product under either mask, and not two branches
        return attend(q, k, v, sight, rate, key, jnp.where(far, BEYOND, window))

    def within(window: int | None) -> Callable[..., jax.Array]:
        return lambda q, k, v: attend(q, k, v, sight, rate, key, window)

    return jax.lax.cond(far, within(None), within(window), q, k, v)


def choice(platform: str, length: Any, width: int, dtype: Any, rate: float) -> str:
    """The backend for a platform: the one that moves the least memory of those that can."""
    if platform == "tpu" and length % 128 == 0:
        if length <= flash.LONGEST:
            return "flash"
        return "splash" if not rate else "xla"
    return "xla" if cudnn.refusal(platform, dtype, width, rate) else "cudnn"
