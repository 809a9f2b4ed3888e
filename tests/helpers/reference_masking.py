"""The masking of the original code bases, written out step by step from their description,
with Python's own randomness: what corruption.py is compared with. Rows are lists of word
numbers, one per candidate piece (0 0 1 2 2 2: words of 2, 1 and 3 pieces). `draws`, where a
list is handed in, takes the number of pieces that each draw added, before spans are merged."""

import math
import random


def groups(words: list[int]) -> list[list[int]]:
    made: dict[int, list[int]] = {}
    for i, w in enumerate(words):
        made.setdefault(w, []).append(i)
    return list(made.values())


def whole_words(words: list[int], budget: int, rng: random.Random) -> set[int]:
    """bert/create_pretraining_data.py, do_whole_word_mask."""
    order = groups(words)
    rng.shuffle(order)
    hidden: set[int] = set()
    for word in order:
        if len(hidden) >= budget:
            break
        if len(hidden) + len(word) <= budget:
            hidden |= set(word)
    return hidden


def ngrams(
    words: list[int], budget: int, rng: random.Random, most: int = 3, draws: list | None = None
) -> set[int]:
    """albert/create_pretraining_data.py: windows of up to three words from every word."""
    cut = groups(words)
    order = list(range(len(cut)))
    rng.shuffle(order)
    hidden: set[int] = set()
    for w in order:
        if len(hidden) >= budget:
            break
        windows = [
            [piece for word in cut[w : w + n] for piece in word]
            for n in range(1, most + 1)
            if w + n <= len(cut)
        ]
        n = rng.choices(range(1, len(windows) + 1), [1 / n for n in range(1, len(windows) + 1)])[0]
        while n > 1 and len(hidden) + len(windows[n - 1]) > budget:
            n -= 1
        window = set(windows[n - 1])
        if len(hidden) + len(window) <= budget and not window & hidden:
            hidden |= window
            if draws is not None:
                draws.append(len(window))
    return hidden


def spans(
    words: list[int],
    rng: random.Random,
    most: int = 10,
    p: float = 0.2,
    draws: list | None = None,
) -> set[int]:
    """SpanBERT's masking.py, GeometricSpanMasking: a budget of 15 % of the pieces, rounded up."""
    budget = math.ceil(0.15 * len(words))
    law = [p * (1 - p) ** (n - 1) for n in range(1, most + 1)]
    hidden: set[int] = set()
    while len(hidden) < budget:
        n = rng.choices(range(1, most + 1), law)[0]
        at = rng.randrange(len(words))
        if at in hidden:
            continue
        while at > 0 and words[at - 1] == words[at]:
            at -= 1
        last, before = words[at] + n, len(hidden)
        while at < len(words) and words[at] < last and len(hidden) < budget:
            hidden.add(at)
            at += 1
        if draws is not None:
            draws.append(len(hidden) - before)
    return hidden


def run_lengths(hidden: set[int]) -> list[int]:
    """Lengths of the runs of hidden pieces: spans after those that touch are merged."""
    lengths = []
    for i in sorted(hidden):
        if i - 1 in hidden:
            lengths[-1] += 1
        else:
            lengths.append(1)
    return lengths
