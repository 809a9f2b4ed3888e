"""The words of a text, which are the same for every tokenizer.

spaces      the souvenir               the | souvenir
no spaces   東京は首都です。昨日...      東京は首都です。 | 昨日...     after punctuation
neither     EVQLVESGGGLVQ...           50 characters | 50 characters | ...
"""

from __future__ import annotations

import itertools
import re
import unicodedata

import numpy as np

LONG_WORD = 20  # characters; a longer one is split after punctuation
LONGEST_WORD = 50  # characters; a longer one, which has no punctuation, is cut
WORD = re.compile(r"\S+")


def split_words(text: str) -> np.ndarray:
    """int [w 3]: begin and end of each word, and where the next one begins."""
    begins, ends = [], []
    for match in WORD.finditer(text):
        begin, end = match.span()
        cuts = _cuts(text, begin, end) if end - begin > LONG_WORD else []
        begins += [begin, *cuts]
        ends += [*cuts, end]
    return np.stack([begins, ends, [*begins[1:], len(text)][: len(begins)]], 1).astype(int)


def _cuts(text: str, begin: int, end: int) -> list[int]:
    """Where a word of a text without spaces is cut: after punctuation, and where the rest is still
    too long."""
    is_mark = [unicodedata.category(c)[0] in "PS" for c in text[begin:end]]
    marks = [begin + i for i in range(1, end - begin) if is_mark[i - 1] and not is_mark[i]]
    return [
        cut
        for first, last in itertools.pairwise([begin, *marks, end])
        for cut in range(first, last, LONGEST_WORD)
    ][1:]
