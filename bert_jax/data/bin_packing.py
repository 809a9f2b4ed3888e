"""Sequences packed into full rows, so that short ones cost nothing.

    sizes 60 100 30 64 28, rows of 128      [100 28]  [64 60]  [30]

Best fit, longest first: each sequence joins the row in which it leaves the least room, or begins
one (Krell et al. 2021, arXiv:2107.02027, section 3, packs by length in the same order). What
joins is a function of the sizes and of their order alone.
"""

from __future__ import annotations

from collections.abc import Sequence

from bert_jax.data.segments import TokenRow

MAX_SEQUENCES = 64  # sequences of a row: the device looks at each of a row's tokens so often


def default_sequences(length: int, row_length: int) -> int:
    """Sequences of a row at most, unless one says: where half of the text is padding, or less,
    more do not fill rows any better, and each adds to what a row could have to predict."""
    return min(MAX_SEQUENCES, row_length // length + 3)


def pack_rows(rows: Sequence[TokenRow], length: int, most: int) -> list[list[TokenRow]]:
    """Every sequence once, up to `most` in a row of `length` tokens; within a row the longest
    first, so that the j-th has at most length / j tokens, and rows in the order of the first
    sequence of the text in each."""
    packs: list[list[int]] = []
    with_room: dict[int, list[int]] = {}  # rows that are open, by the tokens that still fit
    rooms = 0  # bit i: some row has room for exactly i
    for number in sorted(range(len(rows)), key=lambda i: -len(rows[i].tokens)):
        size = len(rows[number].tokens)
        if fits := rooms >> size:
            room = size + (fits & -fits).bit_length() - 1
            place = with_room[room].pop()
            if not with_room[room]:
                rooms ^= 1 << room
        else:
            room, place = length, len(packs)
            packs.append([])
        packs[place].append(number)
        if len(packs[place]) < most:
            with_room.setdefault(room - size, []).append(place)
            rooms |= 1 << room - size
    return [[rows[i] for i in numbers] for numbers in sorted(packs, key=min)]
