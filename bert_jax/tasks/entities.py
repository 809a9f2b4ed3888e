"""Tagging by characters: a text with entities, as words with BIO tags, and back.

    {"text": "Ada met Tom Reed.", "entities": [{"start": 8, "end": 16, "label": "PER"}]}

    Ada  met  Tom    Reed   .
    O    O    B-PER  I-PER  O

A word is a run of letters, digits, and the marks and joiners between them, or one character of a
script without spaces (Han, kana, Thai, Lao, Khmer, Burmese); every other visible character is a
word of its own. Marks belong to the character before them. `start` and `end` count characters,
`end` exclusive. An entity that begins or ends inside a word gets the whole word; one that shares a
word with an earlier entity is left out. Both are counted.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from bert_jax.tasks.examples import TaggingExample
from bert_jax.tasks.fields import (
    NO_LABEL,
    Fields,
    IssueCounts,
    is_marker,
    parse_label,
    shown,
    whole,
)
from bert_jax.tasks.tag_scheme import TagScheme

WIDENED = "entities that begin or end inside a word, widened to whole words"
OVERLAPPING = "entities that share a word with an earlier one, left out"
EMPTY = "entities without a word, left out"

_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\U00020000-\U0003ffff"
)
_JOINERS = "\u00ad\u200c\u200d\u2060"  # soft hyphen, zero-width (non-)joiner, word joiner


def word_spans(text: str) -> tuple[tuple[int, int], ...]:
    """First and last character (exclusive) of each word."""
    return tuple(m.span() for m in _word_pattern().finditer(text))


@functools.cache
def _word_pattern() -> re.Pattern[str]:
    """`\\w` lacks the marks: vowel signs of Indic scripts, points of Arabic and Hebrew."""
    every = (chr(i) for i in (*range(0x300, 0x20000), *range(0xE0100, 0xE01F0)))
    marks = "".join(c for c in every if unicodedata.category(c).startswith("M")) + _JOINERS
    unspaced = f"[{_UNSPACED}]"
    return re.compile(rf"{unspaced}[{marks}]*|(?:(?!{unspaced})[\w{marks}])+|\S[{marks}]*")


def parse_entities(
    fields: Fields, labeled: bool, markers: Collection[str], issues: IssueCounts
) -> TaggingExample:
    """A record with `text` and `entities` as an example. ValueError: a missing or invalid field,
    an entity that is not inside the text."""
    text = fields.text("text")
    values = fields.value("entities", labeled, "a list of entities")
    spans = word_spans(text)
    tokens = tuple(text[begin:end] for begin, end in spans)
    if values is None:
        return TaggingExample(tokens, None, text, spans)
    if not isinstance(values, list) or not all(isinstance(v, dict) for v in values):
        raise ValueError(
            f"{fields.location}: `entities` is {shown(values)}: expected a list of objects, each "
            "with `start`, `end` and `label`"
        )
    tags: list[str | None] = ["O"] * len(tokens)
    parsed = [_parse_entity(Fields(v, fields.location), text) for v in values]
    for begin, end, label in sorted(parsed, key=lambda x: (x[0], -x[1])):
        inside = [i for i, (b, e) in enumerate(spans) if b < end and e > begin]
        issue = None
        if not inside:
            issue = EMPTY
        elif any(tags[i] != "O" for i in inside):
            issue = OVERLAPPING
        else:
            if (spans[inside[0]][0], spans[inside[-1]][1]) != (begin, end):
                issue = WIDENED
            unlabeled = is_marker(label, markers)
            for i in inside:
                tags[i] = None if unlabeled else f"{'I' if i > inside[0] else 'B'}-{label}"
            if unlabeled:
                issues[fields.location.file, NO_LABEL.format(label)] += 1
        if issue:
            issues[fields.location.file, issue] += 1
    return TaggingExample(tokens, tuple(tags), text, spans)


def _parse_entity(fields: Fields, text: str) -> tuple[int, int, str]:
    begin, end = whole(fields.value("start")), whole(fields.value("end"))
    integers = all(isinstance(x, int) and not isinstance(x, bool) for x in (begin, end))
    if not integers or not 0 <= begin < end <= len(text):
        raise ValueError(
            f"{fields.location}: an entity from {shown(begin)} to {shown(end)}: expected numbers "
            f"of characters with 0 <= start < end <= {len(text)}, the length of the text"
        )
    # visible characters only: users' spans often hold a space at an end
    inner = text[begin:end]
    begin += len(inner) - len(inner.lstrip())
    end -= len(inner) - len(inner.rstrip())
    return begin, end, parse_label(fields.value("label"), fields.location)


def all_tags(tags: Iterable[str]) -> set[str]:
    """The tags, with B- and I- of every type and O: training text may lack some of them."""
    types = {tag[2:] for tag in tags if tag != "O"}
    return {"O", *(f"{marker}-{kind}" for kind in types for marker in "BI")}


def decode_entities(
    example: TaggingExample, tags: Sequence[str], p: Sequence[float], scheme: TagScheme
) -> list[dict[str, Any]]:
    """The entities that tags mark, each with the smallest probability of its tags. As in lenient
    scoring, I without a B before it begins an entity."""
    entities: list[dict[str, Any]] = []
    before = ("O", "")
    assert example.spans is not None
    for (begin, end), tag, probability in zip(example.spans, tags, p, strict=True):
        marker, kind = scheme.tags[tag]
        goes_on = marker in "IE" and before[0] in "BI" and before[1] == kind
        if goes_on:
            entities[-1]["end"] = end
            entities[-1]["probability"] = min(entities[-1]["probability"], probability)
        elif marker != "O":
            entity = {"start": begin, "end": end, "label": kind, "probability": probability}
            entities.append(entity)
        before = (marker, kind)
    for entity in entities:
        assert example.text is not None
        entity["text"] = example.text[entity["start"] : entity["end"]]
    return entities
