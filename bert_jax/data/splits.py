"""Training and validation documents: the last of every 20 documents is held out.

documents  0 1 2 ... 18   train         with fewer than 20 documents in all (at least 2),
                     19   validation    the very last one alone is held out
"""

from __future__ import annotations

SPLITS: tuple[str, ...] = ("train", "validation")
NUM_FOLDS = 20


def split_name(number: int, folds: int) -> str:
    """The split of a document, by its number."""
    return "validation" if number % folds == folds - 1 else "train"


def split_size(split: str, documents: int, folds: int) -> int:
    """How many of `documents` documents belong to the split."""
    held_out = documents // folds
    return held_out if split == "validation" else documents - held_out


def index_in_split(number: int, folds: int) -> int:
    """How many documents of its split come before a document."""
    before, fold = divmod(number, folds)
    return before if fold == folds - 1 else before * (folds - 1) + fold


def nth_in_split(split: str, n: int, folds: int) -> int:
    """The number of the n-th document of the split."""
    if split == "validation":
        return n * folds + folds - 1
    return n // (folds - 1) * folds + n % (folds - 1)
