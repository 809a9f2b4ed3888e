"""Packed rows on the device: unpack them into sequences, and pack them again.

    tokens     [CLS] a b [SEP] [CLS] c [SEP] .        size  4 3 0
    segments     1   1 1   1     2   2   2   0        starts 0 4 7
    positions    0   1 2   3     0   1   2   0

Masking sees each sequence in a row of its own, so its masks are those of an unpacked row with the
same number: row `r` holds the sequences `r n` to `r n + n - 1`. Both directions are gathers by
`packed_positions`; nothing is sorted or scattered.

Axes: b packed rows, n maximum sequences per row, l tokens, w positions of a row.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from bert_jax.utils.types import Batch

POSITION_FIELDS = ("masked", "left", "right")  # positions of tokens in a row
SLOT_FIELDS = (*POSITION_FIELDS, "targets", "weights", "offset", "sbo_weights")


def is_packed(batch: Batch) -> bool:
    """Whether each row of a batch holds several sequences."""
    return batch["size"].ndim == 2


class PackedPositions(NamedTuple):
    """The sequence of each position of a row, and the offset in it, for sequences that follow each
    other. Both are 0 after the last sequence."""

    sequence: Int[Array, "b w"]
    offset: Int[Array, "b w"]
    is_real: Bool[Array, "b w"]

    def gather(self, x: Array) -> Array:
        """The value in `x` [b n m] of each position: [b w]."""
        b, _, m = x.shape
        return jnp.take_along_axis(x.reshape(b, -1), self.sequence * m + self.offset, axis=1)

    def gather_sequence(self, x: Array) -> Array:
        """The value in `x` [b n] of each position's sequence: [b w]."""
        return jnp.take_along_axis(x, self.sequence, axis=1)


def packed_positions(sizes: Int[Array, "b n"], width: int) -> PackedPositions:
    """The positions of rows of `width` that hold sequences of `sizes`."""
    ends = jnp.cumsum(sizes, axis=1)
    at = jnp.arange(width, dtype=jnp.int32)
    is_real = at < ends[:, -1:]
    # The number of sequences that end at or before a position is the index of its own sequence.
    sequence = (at[:, None] >= ends[:, None, :]).sum(-1, dtype=jnp.int32)
    sequence = jnp.where(is_real, sequence, 0)
    offset = at - jnp.take_along_axis(ends - sizes, sequence, axis=1)
    return PackedPositions(sequence, jnp.where(is_real, offset, 0), is_real)


def sequence_starts(batch: Batch) -> Int[Array, "b n"]:
    """The first position of each sequence, clipped to the row for empty ones."""
    size = batch["size"]
    begin = jnp.cumsum(size, axis=1) - size
    return jnp.minimum(begin, batch["tokens"].shape[1] - 1).astype(jnp.int32)


def unpack(batch: Batch) -> Batch:
    """The batch with one row per sequence, [b*n l]; missing sequences have size 0."""
    tokens, size = batch["tokens"], batch["size"]
    b, n = size.shape
    length = tokens.shape[1]
    at = jnp.arange(length, dtype=jnp.int32)
    source = sequence_starts(batch)[:, :, None] + at  # b n l
    source_at = jnp.minimum(source, length - 1).reshape(b, -1)

    def by_sequence(x: Any) -> Array:
        return jnp.take_along_axis(x, source_at, axis=1).reshape(b * n, length)

    words = {"words": by_sequence(batch["words"])} if "words" in batch else {}
    rate = {"rate": jnp.repeat(batch["rate"], n)} if "rate" in batch else {}
    is_real = (at < size[:, :, None]).reshape(b * n, length)
    number = batch["row"][:, None] * n + jnp.arange(n, dtype=batch["row"].dtype)
    return {
        "tokens": jnp.where(is_real, by_sequence(tokens), 0),
        "size": size.reshape(b * n),
        "row": number.reshape(b * n),
        "epoch": jnp.repeat(batch["epoch"], n),
        **words,
        **rate,
    }


def pack(batch: Batch, sequences: Batch, slots: int) -> Batch:
    """The packed batch with the masks of its `sequences` (`unpack`, then `mask_tokens`):

    tokens, labels, segments, positions, types                              [b l]
    masked, targets, weights, left, right, offset, sbo_weights              [b slots]
    starts                                                                  [b n]

    `slots` must fit all predictions of a row (`max_packed_predictions`)."""
    size = batch["size"]
    b, n = size.shape
    length = batch["tokens"].shape[1]

    def by_row(x: Array) -> Array:
        return x.reshape(b, n, -1)

    at = packed_positions(size, length)
    first = at.gather_sequence(batch["first"])
    used = (
        by_row(sequences["weights"]).sum(-1).astype(jnp.int32)
    )  # each sequence uses its first slots
    slot = packed_positions(used, slots)
    begin = slot.gather_sequence(sequence_starts(batch))
    fields = {name: slot.gather(by_row(sequences[name])) for name in SLOT_FIELDS}
    fields |= {name: jnp.minimum(fields[name] + begin, length - 1) for name in POSITION_FIELDS}
    fields = {n: jnp.where(slot.is_real, x, jnp.zeros((), x.dtype)) for n, x in fields.items()}
    return {
        **batch,
        **fields,
        "tokens": jnp.where(at.is_real, at.gather(by_row(sequences["tokens"])), batch["tokens"]),
        "labels": batch["tokens"],
        "segments": jnp.where(at.is_real, at.sequence + 1, 0),
        "positions": at.offset,
        "types": (at.is_real & (at.offset >= first)).astype(jnp.int32),
        "starts": sequence_starts(batch),
    }
