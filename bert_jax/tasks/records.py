"""JSON records to examples, each with the place it was found at."""

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

IssueCounts = Counter[tuple[str, str]]  # (file, what is odd there) -> how often
EMPTY_TEXT = "rows with an empty text"
MOVED_ANSWER = "answers that stood elsewhere in their context, found there"
ABSENT_ANSWER = "answers that are not in their context"
UNLABELED_QUESTION = (
    "questions without answers that are not marked impossible, left out of the metrics"
)


class Location(NamedTuple):
    """Where a record stands, for messages."""

    file: str
    part: str  # "line 3", "question 'abc'"

    def __str__(self) -> str:
        return f"{self.file}, {self.part}"


LocatedExample = tuple[Location, Example]


def read_lines(file: Path) -> Iterator[tuple[Location, str]]:
    """The lines of a UTF-8 file, split at newlines only."""
    if not file.is_file():
        raise ValueError(f"{file} does not exist: expected a file; check the path")
    with file.open("rb") as f:
        for number, raw in enumerate(f, 1):
            place = Location(str(file), f"line {number}")
            try:
                line = raw.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as e:
                raise ValueError(f"{place}: not UTF-8 ({e.reason}); convert the file") from None
            yield place, line.removesuffix("\n").removesuffix("\r")


def read_json_lines(file: Path) -> Iterator[tuple[Location, dict[str, Any]]]:
    """The JSON objects of a file, one a line; blank lines are skipped."""
    for place, line in read_lines(file):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as e:
            raise ValueError(f"{place}: not JSON: {e}; mend the line") from None
        if not isinstance(record, dict):
            raise ValueError(f"{place}: expected a JSON object, one a line")
        yield place, record


def read_jsonl_examples(
    task_type: TaskType, file: Path, odd: IssueCounts, labelled: bool
) -> list[LocatedExample]:
    """The rows of a file.

    ValueError: a file that is missing or empty, a line that is not a JSON object, a field that
    is missing or not what it should be.
    """
    found = [
        (place, parse_example(task_type, r, place, odd, labelled))
        for place, r in read_json_lines(file)
    ]
    if not found:
        raise ValueError(f"{file} is empty: expected one JSON object a line")
    return found


def parse_example(
    task_type: TaskType, record: dict[str, Any], place: Location, odd: IssueCounts, labelled: bool
) -> Example:
    """A record as an example; without a label only where none is needed (not `labelled`)."""
    fields = _Fields(record, place)
    if task_type == "tagging":
        made: Example = _tagged(fields, labelled)
        empty = not made.tokens or not all(made.tokens)
    elif task_type == "choice":
        made = _choice(fields, labelled)
        empty = not made.text or not all(made.options)
    elif task_type == "qa":
        made = parse_question(record, fields.text("context"), place, odd, labelled)
        empty = not made.context or not made.question
    else:
        pair = fields.text("text_pair") if record.get("text_pair") is not None else None
        label = fields.value("label", labelled)
        if label is not None:
            label = (
                parse_number(label, place)
                if task_type == "regression"
                else parse_label(label, place)
            )
        made = TextExample(fields.text("text"), pair, label)
        empty = not made.text.strip() or (pair is not None and not pair.strip())
    if empty:
        odd[place.file, EMPTY_TEXT] += 1
    return made


class _Fields(NamedTuple):
    record: dict[str, Any]
    place: Location

    def value(self, field: str, required: bool = True) -> Any:
        found = self.record.get(field)
        if found is None and required:
            seen = ", ".join(sorted(map(str, self.record))) or "nothing"
            raise ValueError(f"{self.place}: no field `{field}`; it has: {seen}")
        return found

    def text(self, field: str) -> str:
        return _string(self.value(field), f"`{field}`", self.place)

    def texts(self, field: str) -> tuple[str, ...]:
        found = self.value(field)
        if not isinstance(found, list):
            raise ValueError(f"{self.place}: `{field}` is not a list: expected one of strings")
        return tuple(_string(x, f"an entry of `{field}`", self.place) for x in found)


def _string(value: Any, what: str, place: Location) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{place}: {what} is {value!r:.40}: expected a string")
    return value.encode(errors="replace").decode()  # half of a surrogate pair is no character


def parse_label(label: Any, place: Location) -> str:
    """A class's name."""
    if isinstance(label, bool) or not isinstance(label, str | int) or label == "":
        raise ValueError(f"{place}: label {label!r:.40}: expected a string or an integer")
    return str(label).encode(errors="replace").decode()


def parse_number(label: Any, place: Location) -> float:
    """A finite label, to be regressed on."""
    if isinstance(label, bool) or not isinstance(label, int | float) or not math.isfinite(label):
        raise ValueError(f"{place}: label {label!r:.40}: expected a finite number")
    return float(label)


def _tagged(fields: _Fields, labelled: bool) -> TaggingExample:
    tokens, tags = fields.texts("tokens"), fields.value("tags", labelled)
    if tags is None:
        return TaggingExample(tokens)
    if not isinstance(tags, list) or len(tags) != len(tokens):
        given = f"{len(tags)} tags" if isinstance(tags, list) else "no list of tags"
        raise ValueError(f"{fields.place}: {len(tokens)} tokens and {given}: expected one a token")
    return TaggingExample(tokens, tuple(parse_label(tag, fields.place) for tag in tags))


def _choice(fields: _Fields, labelled: bool) -> ChoiceExample:
    options, label = fields.texts("options"), fields.value("label", labelled)
    if len(options) < 2:
        raise ValueError(f"{fields.place}: {len(options)} options: expected at least 2")
    if label is not None and (
        isinstance(label, bool) or not isinstance(label, int) or not 0 <= label < len(options)
    ):
        raise ValueError(
            f"{fields.place}: label {label!r:.40}: expected the number of an option, 0 to "
            f"{len(options) - 1}"
        )
    return ChoiceExample(fields.text("text"), fields.text("question"), options, label)


# ---- questions


def parse_question(
    record: dict[str, Any], context: str, place: Location, odd: IssueCounts, labelled: bool
) -> QuestionExample:
    """SQuAD's `id question answers is_impossible`, from any reader; `id` may be missing."""
    fields = _Fields(record, place)
    impossible = fields.value("is_impossible", required=False) or False
    if not isinstance(impossible, bool):
        raise ValueError(f"{place}: `is_impossible` is {impossible!r:.40}: expected true or false")
    given = fields.value("answers", labelled and not impossible)
    answers = () if impossible else tuple(_answers(given or [], context, place, odd))
    if labelled and not impossible and not answers:
        odd[place.file, UNLABELED_QUESTION] += 1
    id = record.get("id")
    id = place.part.removeprefix("line ") if id is None else str(id)
    return QuestionExample(id, fields.text("question"), context, answers, impossible)


def _answers(given: Any, context: str, place: Location, odd: IssueCounts) -> Iterator[Answer]:
    if isinstance(given, dict):  # columns, as Hugging Face and TFDS have them
        texts: Any = given.get("text")
        starts: Any = given.get("answer_start")
        lists = isinstance(texts, list) and isinstance(starts, list)
        if not lists or len(texts) != len(starts):
            raise ValueError(f"{place}: `answers`: expected as many `text` as `answer_start`")
        given = [{"text": t, "answer_start": s} for t, s in zip(texts, starts, strict=True)]
    if not isinstance(given, list) or not all(isinstance(a, dict) for a in given):
        raise ValueError(f"{place}: `answers`: expected a list of objects")
    for answer in given:
        fields = _Fields(answer, place)
        text, start = fields.text("text"), fields.value("answer_start")
        if isinstance(start, bool) or not isinstance(start, int):
            raise ValueError(f"{place}: `answer_start` is {start!r:.40}: expected an integer")
        yield _located(text, start, context, place, odd)


def _located(text: str, start: int, context: str, place: Location, odd: IssueCounts) -> Answer:
    """The answer where it says it is, else at the nearest place where it is."""
    if text.strip() and start >= 0 and context.startswith(text, start):
        return Answer(text, start)
    places = _occurrences(text, context) if text.strip() else []
    odd[place.file, MOVED_ANSWER if places else ABSENT_ANSWER] += 1
    return Answer(text, min(places, key=lambda at: abs(at - start), default=-1))


def _occurrences(text: str, context: str) -> Sequence[int]:
    found: list[int] = []
    at = context.find(text)
    while at >= 0:
        found.append(at)
        at = context.find(text, at + 1)
    return found
