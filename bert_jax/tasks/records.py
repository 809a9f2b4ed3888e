"""Records to examples, each with its location in a file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from bert_jax.config import TaskType
from bert_jax.tasks.entities import parse_entities
from bert_jax.tasks.examples import ChoiceExample, Example, TaggingExample, TextExample
from bert_jax.tasks.fields import (
    EMPTY_TEXT,
    LABEL_FIELDS,
    NO_LABEL,
    REPEATED_LABEL,
    Fields,
    IssueCounts,
    Location,
    is_blank,
    is_marker,
    parse_label,
    parse_number,
    shown,
    whole,
)
from bert_jax.tasks.questions import parse_question
from bert_jax.tasks.rerank import parse_candidates
from bert_jax.tasks.tables import NAMED_COLUMNS, expected_rows, read_records
from bert_jax.tasks.text_files import LocatedRecord

# Labels that usually mean "no label": of GLUE and test splits in the copies of Hugging Face and
# TFDS, and of SNLI.
MARKERS = frozenset(("-1", "-"))
EMPTY_ANSWERS = "questions whose lists of answers are empty, which have no answer (SQuAD 2.0)"

LocatedExample = tuple[Location, Example]


def read_file_examples(
    task_type: TaskType,
    file: Path,
    issues: IssueCounts,
    labeled: bool,
    unlabeled: Collection[str] = (),
) -> list[LocatedExample]:
    """The examples of a JSONL, CSV, TSV or CoNLL file (tables.py). `labeled` and `unlabeled` are
    those of `parse_records`.

    ValueError: a file that is missing, empty or not in its format, a missing or invalid field.
    """
    records = list(read_records(task_type, file, issues))
    if not records:
        raise ValueError(f"{file} is empty: expected {expected_rows(file)}")
    if labeled and file.suffix in NAMED_COLUMNS:
        _refuse_empty(records)
    return parse_records(task_type, records, issues, labeled, unlabeled)


def parse_records(
    task_type: TaskType,
    records: Sequence[LocatedRecord],
    issues: IssueCounts,
    labeled: bool,
    unlabeled: Collection[str] = (),
) -> list[LocatedExample]:
    """The examples of a split's records. If `labeled`, every record must have a label; one that is
    among `unlabeled` means that there is none. A split that is not `labeled` (test) and has no
    label but -1 and - counts as unlabeled.

    ValueError: a missing or invalid field.
    """
    markers = frozenset(unlabeled)
    if task_type == "qa":
        records = _with_impossible(records, issues)
    if not labeled and task_type != "qa":
        field = {"tagging": "tags", "rerank": "labels"}.get(task_type, "label")
        values = [value for _, record in records for value in _flat(record.get(field))]
        if values and all(is_marker(value, MARKERS) for value in values):
            markers |= MARKERS
    return [
        (location, parse_example(task_type, record, location, issues, labeled, markers))
        for location, record in records
    ]


def _refuse_empty(records: Sequence[LocatedRecord]) -> None:
    """ValueError: a row of a table without any text or label, as spreadsheets leave at the end."""
    for location, record in records:
        # 0 is a label; False stands for an empty cell of `is_impossible`
        if record and all(x is False or x in ("", None, []) for x in record.values()):
            raise ValueError(
                f"{location}: all cells are empty: expected a row with a label; remove the line"
            )


def _with_impossible(
    records: Sequence[LocatedRecord], issues: IssueCounts
) -> Sequence[LocatedRecord]:
    """The records of SQuAD 2.0 as Hugging Face has it: lists of texts and starts, which are empty
    where a question has no answer, and no `is_impossible`. In a split without a single answer they
    say nothing."""
    listed = [r["answers"] for _, r in records if isinstance(r.get("answers"), dict)]
    some = any(answers.get("text") for answers in listed)
    if not some or any("is_impossible" in record for _, record in records):
        return records
    marked: list[LocatedRecord] = []
    for location, record in records:
        answers = record.get("answers")
        if isinstance(answers, dict) and answers.get("text") == []:
            issues[location.file, EMPTY_ANSWERS] += 1
            record = {**record, "is_impossible": True}
        marked.append((location, record))
    return marked


def _flat(label: Any) -> list[Any]:
    return label if isinstance(label, list) else [] if label is None else [label]


def parse_unlabeled_example(
    task_type: TaskType,
    record: Any,
    location: Location,
    pairs: bool | None = None,
    issues: IssueCounts | None = None,
) -> Example:
    """A record as an example without its label. `pairs` says whether the model was trained on
    pairs of texts (True), on single texts (False), or on both (None). Empty texts are counted in
    `issues`.

    ValueError: a missing or invalid field, a `text_pair` that the model needs or does not know.
    """
    if not isinstance(record, dict):
        raise ValueError(
            f"{location} is {shown(record)}: expected a dict with the fields that finetune reads"
        )
    unlabeled = {k: v for k, v in record.items() if k not in LABEL_FIELDS}
    counts: IssueCounts = Counter() if issues is None else issues
    example = parse_example(task_type, unlabeled, location, counts, labeled=False)
    if isinstance(example, TextExample) and pairs not in (None, example.text_pair is not None):
        problem = (
            "`text_pair` is missing, but the model was trained on pairs of texts: add the field"
            if pairs
            else "`text_pair` is given, but the model was trained on single texts: leave it out"
        )
        raise ValueError(f"{location}: {problem}")
    return example


def parse_example(
    task_type: TaskType,
    record: dict[str, Any],
    location: Location,
    issues: IssueCounts,
    labeled: bool,
    markers: Collection[str] = (),
) -> Example:
    """A record as an example. If `labeled`, a label is required; one of `markers` means that there
    is none. ValueError: a missing or invalid field."""
    fields = Fields(record, location)
    if task_type == "qa":
        return parse_question(record, fields.text("context"), location, issues, labeled)
    if task_type == "tagging":
        example: Example = _parse_tagging(fields, labeled, markers, issues)
        empty = not example.tokens or is_blank(*example.tokens)
    elif task_type == "rerank":
        example = parse_candidates(fields, labeled, markers)
        empty = is_blank(example.text, *example.documents)
    elif task_type == "choice":
        example = _parse_choice(fields, labeled, markers, issues)
        empty = is_blank(example.text, *example.options)
    else:
        text, pair = fields.text("text"), fields.optional_text("text_pair")
        label = _label(fields, labeled, markers, issues)
        if label is not None:
            label = _parse_text_label(task_type, label, location, issues)
        example = TextExample(text, pair, label)
        empty = is_blank(text, pair)
    if empty:
        issues[location.file, EMPTY_TEXT] += 1
    return example


def _label(
    fields: Fields, required: bool, markers: Collection[str], issues: IssueCounts
) -> Any | None:
    """The field `label`; None if it is missing and not `required`, or is one of `markers`."""
    label = fields.value("label", required, "a label")
    names = label if isinstance(label, list) else [label]  # a list of several labels
    if label is None or not names or not all(is_marker(name, markers) for name in names):
        return label
    issues[fields.location.file, NO_LABEL.format(str(names[0]))] += 1
    return None


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


def _parse_tagging(
    fields: Fields, labeled: bool, markers: Collection[str], issues: IssueCounts
) -> TaggingExample:
    if "tokens" not in fields.record and "text" in fields.record:
        return parse_entities(fields, labeled, markers, issues)
    tokens, tags = fields.texts("tokens"), fields.value("tags", labeled, "a list of tags")
    if tags is None:
        return TaggingExample(tokens)
    if not isinstance(tags, list) or len(tags) != len(tokens):
        count = f"{len(tags)} tags" if isinstance(tags, list) else "no list of tags"
        raise ValueError(
            f"{fields.location}: {len(tokens)} tokens and {count}: expected one tag per token"
        )
    names: list[str | None] = []
    for tag in tags:
        unlabeled = tag is not None and is_marker(tag, markers)
        names.append(None if unlabeled else parse_label(tag, fields.location))
        if unlabeled:
            issues[fields.location.file, NO_LABEL.format(str(tag))] += 1
    return TaggingExample(tokens, tuple(names))


def _parse_choice(
    fields: Fields, labeled: bool, markers: Collection[str], issues: IssueCounts
) -> ChoiceExample:
    options, label = fields.texts("options"), whole(_label(fields, labeled, markers, issues))
    if len(options) < 2:
        raise ValueError(f"{fields.location}: {len(options)} options: expected at least 2")
    if label is not None and (
        isinstance(label, bool) or not isinstance(label, int) or not 0 <= label < len(options)
    ):
        raise ValueError(
            f"{fields.location}: label {shown(label)}: expected the number of an option, 0 to "
            f"{len(options) - 1}"
        )
    return ChoiceExample(fields.text("text"), fields.text("question"), options, label)
