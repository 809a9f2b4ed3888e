"""The fields of a JSON record, checked one by one; errors name the record's location."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection
from typing import Any, NamedTuple

from bert_jax.utils.text_lines import without_surrogates

IssueCounts = Counter[tuple[str, str]]  # (file, what is irregular there) -> how often
MAX_NUMBER = 1e15  # in size, of a regression's labels
EMPTY_TEXT = "rows with an empty text"
MOVED_ANSWER = "answers that are elsewhere in their context than `answer_start` says"
ABSENT_ANSWER = "answers that are not in their context"
UNLABELED_QUESTION = (
    "questions without answers that are not marked impossible, left out of the metrics"
)

LABEL_FIELDS = ("label", "tags", "entities", "answers", "is_impossible", "labels", "missing")
REPEATED_LABEL = "rows with the same label twice, which counts once"
NO_LABEL = "labels {!r}, which mean that there is no label"


def is_blank(*texts: str | None) -> bool:
    """Whether one of the texts has no character but white space. None is a text that is absent."""
    return any(text is not None and not text.strip() for text in texts)


class Location(NamedTuple):
    """Where a record is, for messages."""

    file: str
    part: str  # "line 3", "question 'abc'"

    def __str__(self) -> str:
        return f"{self.file}, {self.part}"


class Fields(NamedTuple):
    """The fields of a record. A field that is missing, null or of a wrong type raises ValueError,
    each with its own message."""

    record: dict[str, Any]
    location: Location

    def value(self, field: str, required: bool = True, expected: str = "a value") -> Any:
        """None if a field is missing or null that is not `required`."""
        if required and field not in self.record:
            names = ", ".join(sorted(map(str, self.record))) or "none"
            raise ValueError(f"{self.location}: no field `{field}`; its fields are: {names}")
        if required and self.record[field] is None:
            raise ValueError(f"{self.location}: `{field}` is null: expected {expected}")
        return self.record.get(field)

    def text(self, field: str) -> str:
        return to_string(self.value(field, expected="a string"), f"`{field}`", self.location)

    def optional_text(self, field: str) -> str | None:
        """None if the field is missing. ValueError: it is null."""
        if field not in self.record:
            return None
        if self.record[field] is None:
            raise ValueError(
                f"{self.location}: `{field}` is null: expected a string; leave the field out "
                "where there is none"
            )
        return self.text(field)

    def texts(self, field: str) -> tuple[str, ...]:
        values = self.value(field, expected="a list of strings")
        if not isinstance(values, list):
            raise ValueError(
                f"{self.location}: `{field}` is not a list: expected a list of strings"
            )
        return tuple(to_string(x, f"an entry of `{field}`", self.location) for x in values)


def to_string(value: Any, what: str, location: Location) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{location}: {what} is {shown(value)}: expected a string")
    return without_surrogates(value)


def shown(value: Any) -> str:
    """A JSON value for a message, at most 40 characters of it."""
    return "null" if value is None else f"{value!r:.40}"


def whole(value: Any) -> Any:
    """A float without a fraction as an integer, other values as they are: pandas writes 39.0 for 39
    where a column has empty cells."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def parse_label(label: Any, location: Location) -> str:
    """The name of a class. ValueError: empty, or not a string or an integer."""
    if label == "":
        raise ValueError(f"{location}: the label is empty: expected a string or an integer")
    if isinstance(label, bool) or not isinstance(label, str | int):
        raise ValueError(f"{location}: label {shown(label)}: expected a string or an integer")
    return without_surrogates(str(label))


def parse_number(label: Any, location: Location) -> float:
    """The label of a regression. ValueError: not a number, or one whose squared error overflows
    float32, the type of losses."""
    number = not isinstance(label, bool) and isinstance(label, int | float)
    if not number or (isinstance(label, float) and not math.isfinite(label)):
        raise ValueError(f"{location}: label {shown(label)}: expected a finite number")
    if abs(label) > MAX_NUMBER:
        raise ValueError(
            f"{location}: label {shown(label)}: expected at most {MAX_NUMBER:.0e} in size, since "
            "losses are float32; rescale the labels"
        )
    return float(label)


def is_marker(label: Any, markers: Collection[str]) -> bool:
    """Whether a label is one of those that mean "no label"."""
    return not isinstance(label, list | dict) and str(whole(label)) in markers
