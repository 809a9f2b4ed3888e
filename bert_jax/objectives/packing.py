"""Packed rows on the device: cut into their sequences, and joined again.

    tokens     [CLS] a b [SEP] [CLS] c [SEP] .        size  4 3 0
    segments     1   1 1   1     2   2   2   0        starts 0 4 7
    positions    0   1 2   3     0   1   2   0

Corruption sees each sequence in a row of its own, as if nothing were packed; its masks are then
those of any unpacked row with that number: row `r` holds the sequences `r n` to `r n + n - 1`.
Both ways are look-ups by `places`; nothing is sorted or scattered.

Axes: b packed rows, n sequences of a row at most, l tokens, q slots of a sequence, p of a row.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from bert_jax.utils.types import Batch

PLACES = ("masked", "left", "right")  # of tokens, within a row
SLOTS = (*PLACES, "targets", "weights", "offset", "sbo_weights")


def is_packed(batch: Batch) -> bool:
    """Whether the rows of a corpus, as data.py gives them, hold several sequences each."""
    return batch["size"].ndim == 2


class PackedPositions(NamedTuple):
    """Where in its sequence, and in which, each place of a row is: of sequences one behind the
    other. Where a row has no more of them both are 0."""

    sequence: Int[Array, "b w"]
    place: Int[Array, "b w"]
    real: Bool[Array, "b w"]

    def look_up(self, x: Array) -> Array:
        """What each place has of `x` [b n m]: [b w]."""
        b, _, m = x.shape
        return jnp.take_along_axis(x.reshape(b, -1), self.sequence * m + self.place, axis=1)

    def of_sequence(self, x: Array) -> Array:
        """What the sequence of each place has of `x` [b n]: [b w]."""
        return jnp.take_along_axis(x, self.sequence, axis=1)


def packed_positions(sizes: Int[Array, "b n"], width: int) -> PackedPositions:
    """Of rows of `width` places, in which sequences have `sizes`."""
    ends = jnp.cumsum(sizes, axis=1)
    at = jnp.arange(width, dtype=jnp.int32)
    real = at < ends[:, -1:]
    # As many sequences end at or before a place as there are before its own.
    sequence = (at[:, None] >= ends[:, None, :]).sum(-1, dtype=jnp.int32)
    sequence = jnp.where(real, sequence, 0)
    place = at - jnp.take_along_axis(ends - sizes, sequence, axis=1)
    return PackedPositions(sequence, jnp.where(real, place, 0), real)


def starts(batch: Batch) -> Int[Array, "b n"]:
    """Where each sequence begins; within the row for those that are empty, too."""
    size = batch["size"]
    begin = jnp.cumsum(size, axis=1) - size
    return jnp.minimum(begin, batch["tokens"].shape[1] - 1).astype(jnp.int32)


def unpack(batch: Batch) -> Batch:
    """A row for each sequence, [b*n l]; of those that are not there of size 0."""
    tokens, size = batch["tokens"], batch["size"]
    b, n = size.shape
    length = tokens.shape[1]
    at = jnp.arange(length, dtype=jnp.int32)
    from_ = starts(batch)[:, :, None] + at  # b n l
    rows = jnp.take_along_axis(
        tokens, jnp.minimum(from_, length - 1).reshape(b, -1), axis=1
    ).reshape(b, n, length)
    rate = {"rate": jnp.repeat(batch["rate"], n)} if "rate" in batch else {}
    number = batch["row"][:, None] * n + jnp.arange(n, dtype=batch["row"].dtype)
    return {
        "tokens": jnp.where(at < size[:, :, None], rows, 0).reshape(b * n, length),
        "size": size.reshape(b * n),
        "row": number.reshape(b * n),
        "epoch": jnp.repeat(batch["epoch"], n),
        **rate,
    }


def pack(batch: Batch, rows: Batch, slots: int) -> Batch:
    """The packed batch, with what corruption made of the `rows` that it was cut into:

    tokens, labels, segments, positions, types                              [b l]
    masked, targets, weights, left, right, offset, sbo_weights              [b slots]
    starts                                                                  [b n]

    `slots` must be enough for all predictions of a row (corruption.packed_predictions)."""
    size = batch["size"]
    b, n = size.shape
    length = batch["tokens"].shape[1]

    def by_row(x: Array) -> Array:
        return x.reshape(b, n, -1)

    at = packed_positions(size, length)
    first = at.of_sequence(batch["first"])
    used = by_row(rows["weights"]).sum(-1).astype(jnp.int32)  # the first slots of each
    slot = packed_positions(used, slots)
    begin = slot.of_sequence(starts(batch))
    made = {name: slot.look_up(by_row(rows[name])) for name in SLOTS}
    made |= {name: jnp.minimum(made[name] + begin, length - 1) for name in PLACES}
    made = {name: jnp.where(slot.real, x, jnp.zeros((), x.dtype)) for name, x in made.items()}
    return {
        **batch,
        **made,
        "tokens": jnp.where(at.real, at.look_up(by_row(rows["tokens"])), batch["tokens"]),
        "labels": batch["tokens"],
        "segments": jnp.where(at.real, at.sequence + 1, 0),
        "positions": at.place,
        "types": (at.real & (at.place >= first)).astype(jnp.int32),
        "starts": starts(batch),
    }
