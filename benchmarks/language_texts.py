"""Texts of twelve languages for languages.py: Django's translations, words drawn by jieba's
frequencies for Chinese, and random lines of a script."""

from __future__ import annotations

import gettext
import itertools
import random
import unicodedata
from collections.abc import Iterator
from pathlib import Path

LANGUAGES: dict[str, str] = {  # the Unicode blocks that random lines are drawn from
    "ko": "AC00-D7A3 1100-11FF 3130-318F",
    "ja": "3040-30FF 4E00-9FFF FF65-FF9F 3000-303F",
    "zh": "4E00-9FFF 3400-4DBF 3000-303F",
    "th": "0E00-0E7F",
    "hi": "0900-097F",
    "ar": "0600-06FF",
    "fa": "0600-06FF 200B-200F",
    "vi": "0041-007A 00C0-024F 0300-036F 1E00-1EFF",
    "tr": "0041-007A 00C0-017F",
    "de": "0041-007A 00C0-00FF",
    "ru": "0400-04FF",
    "el": "0370-03FF 1F00-1FFF",
}
CHINESE_LINES = 6000
RANDOM_LINES = 1000


def text_of(language: str) -> list[str]:
    """Distinct lines of text."""
    chinese = language == "zh"
    return list(dict.fromkeys(chinese_lines(CHINESE_LINES) if chinese else _django_lines(language)))


def _django_lines(language: str) -> Iterator[str]:
    import django  # type: ignore[import-not-found]

    for file in sorted(Path(django.__path__[0]).rglob(f"locale/{language}/LC_MESSAGES/*.mo")):
        with file.open("rb") as f:
            catalog = gettext.GNUTranslations(f)._catalog  # type: ignore[attr-defined]
        for source, text in catalog.items():
            for line in text.splitlines() if source else []:
                if any(unicodedata.category(c)[0] == "L" for c in line):
                    yield line.strip()


def chinese_lines(number: int, seed: int = 0) -> Iterator[str]:
    """Lines of 200 to 400 words drawn by their frequencies, in sentences of about 25 words."""
    import jieba  # type: ignore[import-not-found]

    entries = Path(jieba.__path__[0]).joinpath("dict.txt").read_text(encoding="utf-8").split("\n")
    words, counts = zip(*(e.split(" ")[:2] for e in entries if e), strict=True)
    rng = random.Random(seed)
    weights = list(itertools.accumulate(map(int, counts)))
    for _ in range(number):
        drawn = rng.choices(words, cum_weights=weights, k=rng.randint(200, 400))
        marks = rng.choices(["", "，", "。"], [86, 10, 4], k=len(drawn))  # noqa: RUF001
        yield "".join(w + mark for w, mark in zip(drawn, marks, strict=True)) + "。"


def random_lines(language: str) -> list[str]:
    """Lines of 1 to 8 words of assigned characters of the language's blocks."""
    ranges = [r.split("-") for r in LANGUAGES[language].split()]
    points = (p for a, b in ranges for p in range(int(a, 16), int(b, 16) + 1))
    letters = [chr(p) for p in points if unicodedata.category(chr(p)) not in ("Cn", "Co", "Cs")]
    rng = random.Random(1)
    words = iter(lambda: "".join(rng.choices(letters, k=rng.randint(1, 9))), None)
    return [" ".join(itertools.islice(words, rng.randint(1, 8))) for _ in range(RANDOM_LINES)]
