"""JSON records to examples, each with its location in a file."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bert_jax.config import TaskType
from bert_jax.tasks.examples import (
    Answer,
    ChoiceExample,
    Example,
    QuestionExample,
    TaggingExample,
    TextExample,
)

IssueCounts = Counter[tuple[str, str]]  # (file, what is irregular there) -> how often
EMPTY_TEXT = "rows with an empty text"
MOVED_ANSWER = "answers that are elsewhere in their context than `answer_start` says"
ABSENT_ANSWER = "answers that are not in their context"
UNLABELED_QUESTION = (
    "questions without answers that are not marked impossible, left out of the metrics"
)
REPEATED_LABEL = "rows with the same label twice, which counts once"
LABEL_FIELDS = ("label", "tags", "answers", "is_impossible")


class Location(NamedTuple):
    """Where a record is, for messages."""

    file: str
    part: str  # "line 3", "question 'abc'"

    def __str__(self) -> str:
        return f"{self.file}, {self.part}"


LocatedExample = tuple[Location, Example]


def read_lines(file: Path) -> Iterator[tuple[Location, str]]:
    """The lines of a UTF-8 file, split at newlines only. ValueError: missing or not UTF-8."""
    if not file.is_file():
        raise ValueError(f"{file} does not exist: expected a file; check the path")
    with file.open("rb") as f:
        for number, raw in enumerate(f, 1):
            location = Location(str(file), f"line {number}")
            try:
                line = raw.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as e:
                raise ValueError(f"{location}: not UTF-8 ({e.reason}); convert the file") from None
            yield location, line.removesuffix("\n").removesuffix("\r")


def read_json_lines(file: Path) -> Iterator[tuple[Location, dict[str, Any]]]:
    """The JSON objects of a file, one per line; blank lines are skipped.

    ValueError: a line that is not a JSON object, or as `read_lines`.
    """
    for location, line in read_lines(file):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as e:
            raise ValueError(f"{location}: not JSON: {e}; fix the line") from None
        if not isinstance(record, dict):
            raise ValueError(f"{location}: expected one JSON object per line")
        yield location, record


def read_jsonl_examples(
    task_type: TaskType, file: Path, issues: IssueCounts, labeled: bool
) -> list[LocatedExample]:
    """The examples of a JSONL file.

    ValueError: a file that is missing or empty, a line that is not a JSON object, a missing or
    invalid field.
    """
    examples = [
        (location, parse_example(task_type, record, location, issues, labeled))
        for location, record in read_json_lines(file)
    ]
    if not examples:
        raise ValueError(f"{file} is empty: expected one JSON object per line")
    return examples


def iter_unlabeled_examples(task_type: TaskType, file: Path) -> Iterator[Example]:
    """The examples of a JSONL file, one at a time, without their labels.

    ValueError: a line that is not a JSON object, a missing or invalid field.
    """
    records = read_json_lines(file)
    return (parse_unlabeled_example(task_type, record, location) for location, record in records)


def parse_unlabeled_example(task_type: TaskType, record: Any, location: Location) -> Example:
    """A record as an example without its label. ValueError: a missing or invalid field."""
    if not isinstance(record, dict):
        raise ValueError(f"{location}: expected one JSON object per line")
    unlabeled = {k: v for k, v in record.items() if k not in LABEL_FIELDS}
    return parse_example(task_type, unlabeled, location, Counter(), labeled=False)


def parse_example(
    task_type: TaskType,
    record: dict[str, Any],
    location: Location,
    issues: IssueCounts,
    labeled: bool,
) -> Example:
    """A record as an example. If `labeled`, a label is required. ValueError: a missing or invalid
    field."""
    fields = _Fields(record, location)
    if task_type == "tagging":
        example: Example = _parse_tagging(fields, labeled)
        empty = not example.tokens or not all(example.tokens)
    elif task_type == "choice":
        example = _parse_choice(fields, labeled)
        empty = not example.text or not all(example.options)
    elif task_type == "qa":
        example = parse_question(record, fields.text("context"), location, issues, labeled)
        empty = not example.context or not example.question
    else:
        pair = fields.text("text_pair") if record.get("text_pair") is not None else None
        label = fields.value("label", labeled)
        if label is not None:
            label = _parse_text_label(task_type, label, location, issues)
        example = TextExample(fields.text("text"), pair, label)
        empty = not example.text.strip() or (pair is not None and not pair.strip())
    if empty:
        issues[location.file, EMPTY_TEXT] += 1
    return example


class _Fields(NamedTuple):
    """The fields of a record; a missing or invalid one raises ValueError."""

    record: dict[str, Any]
    location: Location

    def value(self, field: str, required: bool = True) -> Any:
        value = self.record.get(field)
        if value is None and required:
            names = ", ".join(sorted(map(str, self.record))) or "none"
            raise ValueError(f"{self.location}: no field `{field}`; its fields are: {names}")
        return value

    def text(self, field: str) -> str:
        return _string(self.value(field), f"`{field}`", self.location)

    def texts(self, field: str) -> tuple[str, ...]:
        values = self.value(field)
        if not isinstance(values, list):
            raise ValueError(
                f"{self.location}: `{field}` is not a list: expected a list of strings"
            )
        return tuple(_string(x, f"an entry of `{field}`", self.location) for x in values)


def _string(value: Any, what: str, location: Location) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{location}: {what} is {value!r:.40}: expected a string")
    return value.encode(errors="replace").decode()  # replaces unpaired surrogates


def parse_label(label: Any, location: Location) -> str:
    """The name of a class. ValueError: not a string or an integer."""
    if isinstance(label, bool) or not isinstance(label, str | int) or label == "":
        raise ValueError(f"{location}: label {label!r:.40}: expected a string or an integer")
    return str(label).encode(errors="replace").decode()


def _parse_text_label(
    task_type: TaskType, label: Any, location: Location, issues: IssueCounts
) -> str | float | tuple[str, ...]:
    """The label of a text; a list stands for any number of classes, in their order in the file."""
    if task_type == "regression":
        return parse_number(label, location)
    if not isinstance(label, list):
        return (
            (parse_label(label, location),)
            if task_type == "multilabel"
            else parse_label(label, location)
        )
    names = tuple(dict.fromkeys(parse_label(name, location) for name in label))
    issues[location.file, REPEATED_LABEL] += len(names) < len(label)
    return names


def parse_number(label: Any, location: Location) -> float:
    """The label of a regression. ValueError: not a finite number."""
    if isinstance(label, bool) or not isinstance(label, int | float) or not math.isfinite(label):
        raise ValueError(f"{location}: label {label!r:.40}: expected a finite number")
    return float(label)


def _parse_tagging(fields: _Fields, labeled: bool) -> TaggingExample:
    tokens, tags = fields.texts("tokens"), fields.value("tags", labeled)
    if tags is None:
        return TaggingExample(tokens)
    if not isinstance(tags, list) or len(tags) != len(tokens):
        count = f"{len(tags)} tags" if isinstance(tags, list) else "no list of tags"
        raise ValueError(
            f"{fields.location}: {len(tokens)} tokens and {count}: expected one tag per token"
        )
    return TaggingExample(tokens, tuple(parse_label(tag, fields.location) for tag in tags))


def _parse_choice(fields: _Fields, labeled: bool) -> ChoiceExample:
    options, label = fields.texts("options"), fields.value("label", labeled)
    if len(options) < 2:
        raise ValueError(f"{fields.location}: {len(options)} options: expected at least 2")
    if label is not None and (
        isinstance(label, bool) or not isinstance(label, int) or not 0 <= label < len(options)
    ):
        raise ValueError(
            f"{fields.location}: label {label!r:.40}: expected the number of an option, 0 to "
            f"{len(options) - 1}"
        )
    return ChoiceExample(fields.text("text"), fields.text("question"), options, label)


# ---- questions


def parse_question(
    record: dict[str, Any], context: str, location: Location, issues: IssueCounts, labeled: bool
) -> QuestionExample:
    """SQuAD's fields `id question answers is_impossible` as an example; `id` may be missing."""
    fields = _Fields(record, location)
    impossible = fields.value("is_impossible", required=False) or False
    if not isinstance(impossible, bool):
        raise ValueError(
            f"{location}: `is_impossible` is {impossible!r:.40}: expected true or false"
        )
    values = fields.value("answers", labeled and not impossible)
    answers = () if impossible else tuple(_parse_answers(values or [], context, location, issues))
    if labeled and not impossible and not answers:
        issues[location.file, UNLABELED_QUESTION] += 1
    id = record.get("id")
    id = location.part.removeprefix("line ") if id is None else str(id)
    return QuestionExample(id, fields.text("question"), context, answers, impossible)


def _parse_answers(
    values: Any, context: str, location: Location, issues: IssueCounts
) -> Iterator[Answer]:
    if isinstance(values, dict):  # columns, as in Hugging Face and TFDS
        texts: Any = values.get("text")
        starts: Any = values.get("answer_start")
        lists = isinstance(texts, list) and isinstance(starts, list)
        if not lists or len(texts) != len(starts):
            raise ValueError(f"{location}: `answers`: expected as many `text` as `answer_start`")
        values = [{"text": t, "answer_start": s} for t, s in zip(texts, starts, strict=True)]
    if not isinstance(values, list) or not all(isinstance(a, dict) for a in values):
        raise ValueError(f"{location}: `answers`: expected a list of objects")
    for value in values:
        fields = _Fields(value, location)
        text, start = fields.text("text"), fields.value("answer_start")
        if isinstance(start, bool) or not isinstance(start, int):
            raise ValueError(f"{location}: `answer_start` is {start!r:.40}: expected an integer")
        yield _locate_answer(text, start, context, location, issues)


def _locate_answer(
    text: str, start: int, context: str, location: Location, issues: IssueCounts
) -> Answer:
    """The answer at `start` if the context has it there, else at its nearest occurrence."""
    if text.strip() and start >= 0 and context.startswith(text, start):
        return Answer(text, start)
    starts = _occurrences(text, context) if text.strip() else []
    issues[location.file, MOVED_ANSWER if starts else ABSENT_ANSWER] += 1
    return Answer(text, min(starts, key=lambda s: abs(s - start), default=-1))


def _occurrences(text: str, context: str) -> Sequence[int]:
    starts: list[int] = []
    start = context.find(text)
    while start >= 0:
        starts.append(start)
        start = context.find(text, start + 1)
    return starts
