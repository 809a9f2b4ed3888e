"""Texts that are longer than a row: truncated, their head and tail, or windows.

    truncate    the beginning, as in bert/run_classifier.py
    head_tail   the first quarter and the last three quarters of the room (Sun et al. 2019, How to
                fine-tune BERT for text classification, section 5.3.1: 128 and 382 of 510 tokens)
    windows     several rows, whose logits are pooled (objectives/supervised.py)

Windows are spread evenly from the first to the last piece. Neighbors overlap by at least a quarter,
unless a text needs more than the maximum number of windows: then pieces between them are left out.
Of a pair the shorter text is in every window, with at most half of the room.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import numpy as np

from bert_jax.data.sentence_pairs import truncated_sizes

Long = Literal["truncate", "head_tail", "windows"]
# Why pieces are in no row: a row is too short, windows have gaps between them, or the shorter text
# of a pair is longer than half of a window.
Cut = Literal["truncated", "gaps", "half"]
Pieces = list[int]
PiecePair = tuple[Pieces, Pieces | None]

HEAD = 4  # one part in so many of the room is the head
OVERLAP = 4  # one part in so many of a window is in the next one too


def cut_text(
    a: Pieces, b: Pieces | None, capacity: int, long: Long, max_windows: int
) -> tuple[list[PiecePair], tuple[Cut, ...]]:
    """A text or pair of texts as one or several rows of at most `capacity` pieces, and why pieces
    were left out, () if none were."""
    if len(a) + len(b or []) <= capacity:
        return [(a, b)], ()
    if long == "windows":
        return _pair_windows(a, b, capacity, max_windows)
    size_a, size_b = truncated_sizes(len(a), len(b or []), capacity)
    keep = head_and_tail if long == "head_tail" else _head
    return [(keep(a, size_a), None if b is None else keep(b, size_b))], ("truncated",)


def long_notes(
    long: Long, length: int, too_long: int, causes: Mapping[Cut, int], max_windows: int
) -> list[str]:
    """What became of texts that are longer than a row, with numbers."""
    longer = f"examples longer than {length} tokens"
    if long != "windows":
        kept = ", of which head and tail are kept" if long == "head_tail" else ", truncated"
        return [f"{longer}{kept}: {too_long}"] if too_long else []
    notes = [f"{longer}, read in windows: {too_long}"] if too_long else []
    advice: dict[Cut, tuple[str, str]] = {
        "gaps": (
            f"examples that {max_windows} windows do not cover, read in part",
            "raise objective.max_windows",
        ),
        "half": (
            "pairs whose shorter text is longer than half of a window, which has its beginning",
            "raise data.length",
        ),
    }
    return notes + [
        f"{what}: {causes[cause]}; {remedy}"
        for cause, (what, remedy) in advice.items()
        if causes[cause]
    ]


def _head(pieces: Pieces, size: int) -> Pieces:
    return pieces[:size]


def head_and_tail(pieces: Pieces, size: int) -> Pieces:
    """The first quarter of `size` pieces and the last three quarters; all if there are no more."""
    if len(pieces) <= size:
        return pieces
    head = size // HEAD
    return pieces[:head] + pieces[len(pieces) - (size - head) :]


def _pair_windows(
    a: Pieces, b: Pieces | None, capacity: int, max_windows: int
) -> tuple[list[PiecePair], tuple[Cut, ...]]:
    if b is None:
        windows, gaps = split_windows(a, capacity, max_windows)
        return [(window, None) for window in windows], ("gaps",) if gaps else ()
    first_is_short = len(a) < len(b)
    short, long = (a, b) if first_is_short else (b, a)
    kept = short[: capacity // 2]
    windows, gaps = split_windows(long, capacity - len(kept), max_windows)
    rows: list[PiecePair] = [(kept, w) if first_is_short else (w, kept) for w in windows]
    causes: dict[Cut, bool] = {"gaps": gaps, "half": len(kept) < len(short)}
    return rows, tuple(cut for cut, holds in causes.items() if holds)


def split_windows(pieces: Pieces, capacity: int, max_windows: int) -> tuple[list[Pieces], bool]:
    """Windows of at most `capacity` pieces, spread evenly, and whether pieces are in none."""
    if len(pieces) <= capacity:
        return [pieces], False
    overlap = capacity // OVERLAP
    needed = math.ceil((len(pieces) - overlap) / (capacity - overlap))
    n = min(needed, max_windows)
    if n == 1:
        return [pieces[:capacity]], True
    starts = np.linspace(0, len(pieces) - capacity, n).round().astype(int).tolist()
    return [pieces[s : s + capacity] for s in starts], len(pieces) > n * capacity


def padded_count(windows: int, max_windows: int) -> int:
    """The number of windows to which a row is padded: a power of 2 or the maximum, so that few
    shapes are compiled."""
    return min(1 << (windows - 1).bit_length(), max_windows)
