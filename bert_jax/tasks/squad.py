"""SQuAD's JSON files, versions 1.1 and 2.0."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bert_jax.tasks.records import EMPTY_TEXT, IssueCounts, LocatedExample, Location, parse_question


def read_squad(file: Path, odd: IssueCounts, labelled: bool) -> list[LocatedExample]:
    """The questions of a file, in its order.

    ValueError: a file that is missing, not JSON, not of SQuAD's shape, or without questions.
    """
    if not file.is_file():
        raise ValueError(f"{file} does not exist: expected a SQuAD file; check the path")
    try:
        content = json.loads(file.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as e:
        raise ValueError(f"{file}: not JSON: {e}; expected a SQuAD file") from None
    found: list[LocatedExample] = []
    for i, article in enumerate(_list(content, "data", Location(str(file), "top level"))):
        for j, paragraph in enumerate(
            _list(article, "paragraphs", Location(str(file), f"data {i}"))
        ):
            found += _paragraph(
                paragraph, Location(str(file), f"data {i}, paragraph {j}"), odd, labelled
            )
    if not found:
        raise ValueError(f"{file} is empty: expected questions in it")
    return found


def _paragraph(
    paragraph: Any, place: Location, odd: IssueCounts, labelled: bool
) -> list[LocatedExample]:
    found: list[LocatedExample] = []
    for number, asked in enumerate(_list(paragraph, "qas", place)):
        if not isinstance(asked, dict):
            raise ValueError(f"{place}: question {number} is no object")
        here = Location(place.file, f"question {asked['id']!r}") if "id" in asked else place
        context = paragraph.get("context")
        if not isinstance(context, str):
            raise ValueError(f"{place}: no field `context` with a string")
        context = context.encode(errors="replace").decode()
        if not context.strip():
            odd[place.file, EMPTY_TEXT] += 1
        found.append((here, parse_question(asked, context, here, odd, labelled)))
    return found


def _list(value: Any, field: str, place: Location) -> list[Any]:
    found = value.get(field) if isinstance(value, dict) else None
    if not isinstance(found, list):
        raise ValueError(
            f"{place}: no list `{field}`: expected data > paragraphs > qas, as SQuAD has"
        )
    return found
