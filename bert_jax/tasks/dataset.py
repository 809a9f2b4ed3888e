"""Read a dataset: a folder, a file or a TFDS dataset to examples.

task                      folder
classification regression tagging choice    train.jsonl  dev.jsonl  (test.jsonl)
choice                    also RACE's own: train/ dev/ (test/)
qa                        train.json  dev.json  (test.json): SQuAD, versions 1.1 and 2.0
a GLUE name               its official .tsv files, or the folder of all nine
any                       tfds:NAME, whose features have the names of the rows' fields

Labels of train and dev are required, those of test are optional. Invalid rows are errors that name
file and line; rows with an empty text are kept and counted in the notes.
"""

from __future__ import annotations

import typing
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from bert_jax.config import GlueTask, TaskType
from bert_jax.tasks import glue, race, tfds
from bert_jax.tasks.examples import (
    ANSWERABLE_LABELS,
    Dataset,
    Example,
    QuestionExample,
    TaggingExample,
    TextExample,
    task_type_of,
)
from bert_jax.tasks.records import IssueCounts, LocatedExample, read_jsonl_examples
from bert_jax.tasks.squad import read_squad

MULTILABEL_NOTE = "labels are lists, so the task is multi-label; rows"


def read_dataset(task: TaskType | GlueTask, folder: str | Path) -> Dataset:
    """The splits train, dev and, if there is one, test.

    The labels are those of train, sorted (as integers if all are integers); GLUE's as published.
    A classification with a list as label in any row is `multilabel`; there a string is a list of
    one label.

    ValueError: a missing or invalid file, field or label, a label in dev or test that train does
    not have, a train split with one class only.
    """
    issues: IssueCounts = Counter()
    task_type = task_type_of(task)
    labels: tuple[str, ...] | None = None
    if str(folder).startswith("tfds:"):
        splits, labels = tfds.read_tfds(task_type, str(folder), issues)
    elif not Path(folder).is_dir():
        raise ValueError(f"{folder} is not a folder: expected one with train and dev files")
    elif is_glue(task):
        splits = glue.read_glue(task, Path(folder), issues)
        labels = glue.GLUE_COLUMNS[task].labels
    else:
        splits = _read_folder(task_type, Path(folder), issues)
    if task == "classification" and _has_label_list(splits):
        task = task_type = "multilabel"
        issues[str(folder), MULTILABEL_NOTE] = sum(map(len, splits.values()))
        splits = {split: [_as_multilabel(row) for row in rows] for split, rows in splits.items()}
    labels = labels if labels else _collect_labels(task_type, splits["train"])
    for rows in splits.values():
        _check_labels(task_type, rows, labels)
    notes = [f"{file}: {what}: {n}" for (file, what), n in issues.items() if n]
    examples = {split: [e for _, e in rows] for split, rows in splits.items()}
    return Dataset(task, task_type, labels, examples, notes)


def read_unlabeled_examples(task_type: TaskType, file: str | Path) -> list[Example]:
    """Examples to predict, with or without labels: JSONL, for questions also SQuAD's JSON.

    ValueError: as `read_dataset`.
    """
    issues: IssueCounts = Counter()
    squad = task_type == "qa" and Path(file).suffix == ".json"
    rows = (
        read_squad(Path(file), issues, labeled=False)
        if squad
        else read_jsonl_examples(task_type, Path(file), issues, labeled=False)
    )
    return [e for _, e in rows]


def is_glue(task: TaskType | GlueTask) -> typing.TypeGuard[GlueTask]:
    """Whether a task is one of GLUE, with its own files."""
    return task in glue.GLUE_COLUMNS


def _read_folder(
    task_type: TaskType, folder: Path, issues: IssueCounts
) -> dict[str, list[LocatedExample]]:
    if task_type == "choice" and race.is_race(folder):
        splits = [s for s in ("train", "dev", "test") if s != "test" or (folder / s).is_dir()]
        return {split: race.read_race(folder, split, issues) for split in splits}
    suffix = ".json" if task_type == "qa" else ".jsonl"
    examples: dict[str, list[LocatedExample]] = {}
    for split in ("train", "dev", "test"):
        file, labeled = folder / f"{split}{suffix}", split != "test"
        if not file.exists() and labeled:
            raise ValueError(
                f"{folder} has no {file.name}: expected train{suffix} and dev{suffix} in it"
            )
        if file.exists() and task_type == "qa":
            examples[split] = read_squad(file, issues, labeled)
        elif file.exists():
            examples[split] = read_jsonl_examples(task_type, file, issues, labeled)
    return examples


def _collect_labels(task_type: TaskType, train: Sequence[LocatedExample]) -> tuple[str, ...]:
    """The labels of the training examples, in the order of the logits."""
    if task_type in ("regression", "choice"):
        return ()
    if task_type == "qa":
        impossible = any(isinstance(e, QuestionExample) and e.impossible for _, e in train)
        return ANSWERABLE_LABELS if impossible else ()
    labels = {label for _, e in train for label in _label_names(e)}
    if task_type == "multilabel" and not labels:
        raise ValueError(f"{train[0][0].file}: no row has a label: expected at least one label")
    if len(labels) < 2 and task_type != "multilabel":
        file = train[0][0].file
        raise ValueError(f"{file}: one class only ({', '.join(labels)}): expected at least two")
    if all(_is_integer(label) for label in labels):
        return tuple(sorted(labels, key=int))
    return tuple(sorted(labels))


def _is_integer(label: str) -> bool:
    return label.removeprefix("-").isdecimal() and label.isascii()


def _label_names(example: Example) -> Iterable[str]:
    if isinstance(example, TaggingExample):
        return example.tags or ()
    if not isinstance(example, TextExample) or example.label is None:
        return ()
    return example.label if isinstance(example.label, tuple) else (str(example.label),)


def _has_label_list(splits: dict[str, list[LocatedExample]]) -> bool:
    return any(
        isinstance(e, TextExample) and isinstance(e.label, tuple)
        for rows in splits.values()
        for _, e in rows
    )


def _as_multilabel(row: LocatedExample) -> LocatedExample:
    location, e = row
    if isinstance(e, TextExample) and isinstance(e.label, str):
        return location, e._replace(label=(e.label,))
    return row


def _check_labels(
    task_type: TaskType, rows: Sequence[LocatedExample], labels: Sequence[str]
) -> None:
    if task_type not in ("classification", "multilabel", "tagging"):
        return
    known = set(labels)
    for location, e in rows:
        unknown = [label for label in _label_names(e) if label not in known]
        if unknown:
            expected = ", ".join(labels[:10]) + (", ..." if len(labels) > 10 else "")
            raise ValueError(
                f"{location}: unknown label {unknown[0]!r:.60}: expected one of {expected}"
            )
