"""SQuAD's JSON files, versions 1.1 and 2.0."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bert_jax.tasks.fields import LABEL_FIELDS, Fields, IssueCounts, Location, shown
from bert_jax.tasks.questions import parse_question
from bert_jax.tasks.records import LocatedExample
from bert_jax.tasks.text_files import require_file


def read_squad(
    file: Path, issues: IssueCounts, labeled: bool, ignore_labels: bool = False
) -> list[LocatedExample]:
    """The questions of a file, in its order. `labeled`: they need answers; `ignore_labels`: their
    answers are not read.

    ValueError: a file that is missing, not JSON, not in SQuAD's format, or without questions.
    """
    require_file(file, "a SQuAD file")
    try:
        content = json.loads(file.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as e:
        raise ValueError(f"{file}: not JSON: {e}; expected a SQuAD file") from None
    examples: list[LocatedExample] = []
    for i, article in enumerate(_list(content, "data", Location(str(file), "top level"))):
        paragraphs = _list(article, "paragraphs", Location(str(file), f"data {i}"))
        for j, paragraph in enumerate(paragraphs):
            location = Location(str(file), f"data {i}, paragraph {j}")
            if ignore_labels:
                paragraph = _without_labels(paragraph)
            examples += _read_paragraph(paragraph, location, issues, labeled)
    if not examples:
        raise ValueError(f"{file} is empty: expected questions in it")
    return examples


def _without_labels(paragraph: Any) -> Any:
    if not isinstance(paragraph, dict) or not isinstance(paragraph.get("qas"), list):
        return paragraph
    questions = [
        {k: v for k, v in q.items() if k not in LABEL_FIELDS} if isinstance(q, dict) else q
        for q in paragraph["qas"]
    ]
    return paragraph | {"qas": questions}


def _read_paragraph(
    paragraph: Any, location: Location, issues: IssueCounts, labeled: bool
) -> list[LocatedExample]:
    records = _list(paragraph, "qas", location)
    context = Fields(paragraph, location).text("context")
    examples: list[LocatedExample] = []
    for number, record in enumerate(records):
        if not isinstance(record, dict):
            raise ValueError(
                f"{location}: question {number} is {shown(record)}: expected an object with "
                "`question` and `answers`"
            )
        unnamed = record.get("id") is None
        part = f"{location.part}, question {number}" if unnamed else f"question {record['id']!r}"
        where = Location(location.file, part)
        examples.append((where, parse_question(record, context, where, issues, labeled)))
    return examples


def _list(value: Any, field: str, location: Location) -> list[Any]:
    values = value.get(field) if isinstance(value, dict) else None
    if not isinstance(values, list):
        raise ValueError(
            f"{location}: no list `{field}`: expected SQuAD's format, data > paragraphs > qas"
        )
    return values
