"""The masking algorithms of the original code bases, written step by step from their description,
with Python's own random numbers: the reference for objectives/masking.py. Rows are lists of word
indices, one per candidate token (0 0 1 2 2 2: words of 2, 1 and 3 tokens). If a list `draws` is
given, the number of tokens that each draw added, before spans are merged, is appended to it."""

import math
import random


def groups(words: list[int]) -> list[list[int]]:
    """The token indices of each word."""
    tokens: dict[int, list[int]] = {}
    for i, w in enumerate(words):
        tokens.setdefault(w, []).append(i)
    return list(tokens.values())


def whole_words(words: list[int], budget: int, rng: random.Random) -> set[int]:
    """bert/create_pretraining_data.py, do_whole_word_mask."""
    order = groups(words)
    rng.shuffle(order)
    masked: set[int] = set()
    for word in order:
        if len(masked) >= budget:
            break
        if len(masked) + len(word) <= budget:
            masked |= set(word)
    return masked


def ngrams(
    words: list[int], budget: int, rng: random.Random, max_words: int = 3, draws: list | None = None
) -> set[int]:
    """albert/create_pretraining_data.py: n-grams of up to three words from every word. The windows
    of a row's last words are shorter, and as likely as the whole ones of other words."""
    grouped = groups(words)
    order = list(range(len(grouped)))
    rng.shuffle(order)
    masked: set[int] = set()
    for w in order:
        if len(masked) >= budget:
            break
        windows = [
            [token for word in grouped[w : w + n] for token in word]
            for n in range(1, max_words + 1)
        ]
        n = rng.choices(range(1, max_words + 1), [1 / n for n in range(1, max_words + 1)])[0]
        while n > 1 and len(masked) + len(windows[n - 1]) > budget:
            n -= 1
        window = set(windows[n - 1])
        if len(masked) + len(window) <= budget and not window & masked:
            masked |= window
            if draws is not None:
                draws.append(len(window))
    return masked


def spans(
    words: list[int],
    rng: random.Random,
    max_words: int = 10,
    p: float = 0.2,
    draws: list | None = None,
) -> set[int]:
    """SpanBERT's masking.py, GeometricSpanMasking: a budget of 15 % of the tokens, rounded up."""
    budget = math.ceil(0.15 * len(words))
    weights = [p * (1 - p) ** (n - 1) for n in range(1, max_words + 1)]
    masked: set[int] = set()
    while len(masked) < budget:
        n = rng.choices(range(1, max_words + 1), weights)[0]
        at = rng.randrange(len(words))
        if at in masked:
            continue
        while at > 0 and words[at - 1] == words[at]:
            at -= 1
        last, before = words[at] + n, len(masked)
        while at < len(words) and words[at] < last and len(masked) < budget:
            masked.add(at)
            at += 1
        if draws is not None:
            draws.append(len(masked) - before)
    return masked


def run_lengths(masked: set[int]) -> list[int]:
    """Lengths of the runs of masked tokens, i.e. of spans after adjacent ones are merged."""
    lengths = []
    for i in sorted(masked):
        if i - 1 in masked:
            lengths[-1] += 1
        else:
            lengths.append(1)
    return lengths
