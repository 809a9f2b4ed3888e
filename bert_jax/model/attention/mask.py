"""Who sees whom."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int


@partial(jax.tree_util.register_dataclass, data_fields=["segments"], meta_fields=["packed"])
@dataclass(frozen=True)
class AttentionMask:
    """Which keys each query sees.

        padded rows     segments  1 1 1 1 0 0      every query sees the keys that are real
        packed rows     segments  1 1 2 2 2 0      each sees its own segment alone

    Nobody sees padding. What a query at a padding place gets is finite and means nothing.
    """

    segments: Any  # int32 [b l]; 0: padding
    packed: bool  # several segments in a row

    @classmethod
    def of_sizes(cls, size: jax.Array, length: int) -> AttentionMask:
        """Of rows whose first `size` [b] tokens are real."""
        real = jnp.arange(length, dtype=jnp.int32) < size[:, None]
        return cls(real.astype(jnp.int32), packed=False)

    def with_padding(self) -> Sight:
        """Padding sees padding: real places see what they saw, and every place sees itself, so no
        softmax is of nothing."""
        segments = self.segments if self.packed else (self.segments > 0).astype(jnp.int32)
        return Sight(segments + 1, packed=True)

    def mask(self, window: int | Int[Array, ""] | None = None) -> Bool[Array, "b #l l"]:
        """True where query l sees key s; a `window` hides keys more than so many places away."""
        keys = self.segments[:, None, :]
        seen = keys > 0
        if self.packed:
            seen &= keys == self.segments[:, :, None]
        if window is not None:
            at = jnp.arange(self.segments.shape[-1])
            seen &= jnp.abs(at[:, None] - at) <= window
        return seen
