"""Questions with answers in their context: SQuAD's fields of a record to an example."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from bert_jax.tasks.examples import Answer, QuestionExample
from bert_jax.tasks.fields import (
    ABSENT_ANSWER,
    EMPTY_TEXT,
    MOVED_ANSWER,
    UNLABELED_QUESTION,
    Fields,
    IssueCounts,
    Location,
    is_blank,
    shown,
    whole,
)


def parse_question(
    record: dict[str, Any], context: str, location: Location, issues: IssueCounts, labeled: bool
) -> QuestionExample:
    """SQuAD's fields `id question answers is_impossible` as an example; `id` may be missing. An
    empty question or context is counted in `issues`."""
    fields = Fields(record, location)
    impossible = record.get("is_impossible", False)
    if not isinstance(impossible, bool):
        raise ValueError(
            f"{location}: `is_impossible` is {shown(impossible)}: expected true or false"
        )
    values = fields.value("answers", labeled and not impossible, "a list of answers")
    answers: tuple[Answer, ...] = ()
    if values is not None and not impossible:
        answers = tuple(_parse_answers(values, context, location, issues))
    if labeled and not impossible and not answers:
        issues[location.file, UNLABELED_QUESTION] += 1
    id = record.get("id")
    id = location.part.removeprefix("line ") if id is None else str(id)
    question = fields.text("question")
    if is_blank(question, context):
        issues[location.file, EMPTY_TEXT] += 1
    return QuestionExample(id, question, context, answers, impossible)


def _parse_answers(
    values: Any, context: str, location: Location, issues: IssueCounts
) -> Iterator[Answer]:
    if isinstance(values, dict):  # columns, as in Hugging Face and TFDS
        texts: Any = values.get("text")
        starts: Any = values.get("answer_start")
        lists = isinstance(texts, list) and isinstance(starts, list)
        if not lists or len(texts) != len(starts):
            raise ValueError(
                f"{location}: `answers` has `text` {shown(texts)} and `answer_start` "
                f"{shown(starts)}: expected two lists of the same length"
            )
        values = [{"text": t, "answer_start": s} for t, s in zip(texts, starts, strict=True)]
    if not isinstance(values, list) or not all(isinstance(a, dict) for a in values):
        raise ValueError(
            f"{location}: `answers` is {shown(values)}: expected a list of objects, each with "
            "`text` and `answer_start`"
        )
    for value in values:
        fields = Fields(value, location)
        text, start = fields.text("text"), whole(fields.value("answer_start"))
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
