"""Pack sequences into full rows, so that short ones waste no padding.

    sizes 60 100 30 64 28, rows of 128      [64 60]  [100 28]  [30]

Best fit decreasing: the longest sequence first, each joins the row in which it leaves the least
room, or starts a new row (Krell et al. 2021, arXiv:2107.02027, section 3, packs by length in the
same order). The result depends on the sizes and their order alone.
"""

from __future__ import annotations

from collections.abc import Sequence

from bert_jax.data.segments import TokenRow

MAX_SEQUENCES = 64  # of a row: the device scans each row's tokens once per sequence


def default_sequences(length: int, row_length: int) -> int:
    """The default maximum number of sequences in a row. If at most half of the unpacked rows is
    padding, more would not fill rows better, and each adds predictions to reserve per row."""
    return min(MAX_SEQUENCES, row_length // length + 3)


def pack_rows(rows: Sequence[TokenRow], length: int, max_sequences: int) -> list[list[TokenRow]]:
    """Pack every sequence once, up to `max_sequences` in a row of `length` tokens.

    In a row the longest comes first, so that the j-th has at most length / j tokens. Rows are in
    the order of the first sequence of the text in each."""
    packs: list[list[int]] = []
    open_packs: dict[int, list[int]] = {}  # packs that are not full, by the room they have
    rooms = 0  # bit i: some pack has room for exactly i tokens
    for number in sorted(range(len(rows)), key=lambda i: -len(rows[i].tokens)):
        size = len(rows[number].tokens)
        if fits := rooms >> size:
            room = size + (fits & -fits).bit_length() - 1
            chosen = open_packs[room].pop()
            if not open_packs[room]:
                rooms ^= 1 << room
        else:
            room, chosen = length, len(packs)
            packs.append([])
        packs[chosen].append(number)
        if len(packs[chosen]) < max_sequences:
            open_packs.setdefault(room - size, []).append(chosen)
            rooms |= 1 << room - size
    return [[rows[i] for i in numbers] for numbers in sorted(packs, key=min)]
