"""Which tokens attend to which."""

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
    """Which keys each query attends to, as segment ids.

        padded rows     segments  1 1 1 1 0 0      every query attends to the real keys
        packed rows     segments  1 1 2 2 2 0      each attends to its own segment only

    No real token attends to padding. Outputs at padding are finite and meaningless.
    """

    segments: Any  # int32 [b l]; 0: padding
    packed: bool  # several segments in a row

    @classmethod
    def from_sizes(cls, size: jax.Array, length: int) -> AttentionMask:
        """The mask of padded rows whose first `size` [b] tokens are real."""
        is_real = jnp.arange(length, dtype=jnp.int32) < size[:, None]
        return cls(is_real.astype(jnp.int32), packed=False)

    def with_padding_segment(self) -> AttentionMask:
        """The mask with padding as one more segment: real tokens attend to the same keys, and
        every token attends to itself, so no softmax is over nothing."""
        segments = self.segments if self.packed else (self.segments > 0).astype(jnp.int32)
        return AttentionMask(segments + 1, packed=True)

    def to_bool(self, window: int | Int[Array, ""] | None = None) -> Bool[Array, " b #l l"]:
        """True where query l attends to key s; `window` hides keys at larger distances."""
        keys = self.segments[:, None, :]
        visible = keys > 0
        if self.packed:
            visible &= keys == self.segments[:, :, None]
        if window is not None:
            at = jnp.arange(self.segments.shape[-1])
            visible &= jnp.abs(at[:, None] - at) <= window
        return visible
