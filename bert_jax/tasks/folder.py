"""A folder, a file or a TFDS dataset to examples, with what is odd in them counted.

    task                      folder
    classification regression tagging choice    train.jsonl  dev.jsonl  (test.jsonl)
    choice                    also RACE's own: train/ dev/ (test/)
    qa                        train.json  dev.json  (test.json): SQuAD, versions 1.1 and 2.0
    a GLUE name               its official .tsv files, or the folder of all nine
    any                       tfds:NAME, features named like the fields of the rows

Labels of train and dev are required, those of test may be missing. Wrong rows are an error that
names file and line; rows with an empty text stay rows and are counted.
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


def read_dataset(task: TaskType | GlueTask, folder: str | Path) -> Dataset:
    """Reads train, dev and, where it is there, test.

    The labels are those of train, integers in their order, strings sorted; GLUE's as published.

    ValueError: a file, field or label that is missing or wrong, a label in dev or test that
    train does not have, a train split of one class only.
    """
    odd: IssueCounts = Counter()
    task_type = task_type_of(task)
    labels: tuple[str, ...] | None = None
    if str(folder).startswith("tfds:"):
        splits, labels = tfds.read_tfds(task_type, str(folder), odd)
    elif not Path(folder).is_dir():
        raise ValueError(f"{folder} is not a folder: expected one with train and dev files")
    elif is_glue(task):
        splits = glue.read_glue(task, Path(folder), odd)
        labels = glue.GLUE_COLUMNS[task].labels
    else:
        splits = _read_folder(task_type, Path(folder), odd)
    labels = labels if labels else _labels(task_type, splits["train"])
    for rows in splits.values():
        _check(task_type, rows, labels)
    notes = [f"{file}: {what}: {n}" for (file, what), n in odd.items() if n]
    examples = {split: [e for _, e in rows] for split, rows in splits.items()}
    return Dataset(task, task_type, labels, examples, notes)


def read_unlabeled_examples(task_type: TaskType, file: str | Path) -> list[Example]:
    """Rows to predict, with labels or without: JSONL, for questions also SQuAD's JSON.

    ValueError: as `read`.
    """
    odd: IssueCounts = Counter()
    squad = task_type == "qa" and Path(file).suffix == ".json"
    rows = (
        read_squad(Path(file), odd, labelled=False)
        if squad
        else read_jsonl_examples(task_type, Path(file), odd, labelled=False)
    )
    return [e for _, e in rows]


def is_glue(task: TaskType | GlueTask) -> typing.TypeGuard[GlueTask]:
    return task in glue.GLUE_COLUMNS


def _read_folder(
    task_type: TaskType, folder: Path, odd: IssueCounts
) -> dict[str, list[LocatedExample]]:
    if task_type == "choice" and race.is_race(folder):
        there = [s for s in ("train", "dev", "test") if s != "test" or (folder / s).is_dir()]
        return {split: race.read_race(folder, split, odd) for split in there}
    suffix = ".json" if task_type == "qa" else ".jsonl"
    found: dict[str, list[LocatedExample]] = {}
    for split in ("train", "dev", "test"):
        file, labelled = folder / f"{split}{suffix}", split != "test"
        if not file.exists() and labelled:
            raise ValueError(f"{folder} has no {file.name}: expected train{suffix}, dev{suffix}")
        if file.exists() and task_type == "qa":
            found[split] = read_squad(file, odd, labelled)
        elif file.exists():
            found[split] = read_jsonl_examples(task_type, file, odd, labelled)
    return found


def _labels(task_type: TaskType, train: Sequence[LocatedExample]) -> tuple[str, ...]:
    """The labels of the training rows, in the order of the logits."""
    if task_type in ("regression", "choice"):
        return ()
    if task_type == "qa":
        impossible = any(isinstance(e, QuestionExample) and e.impossible for _, e in train)
        return ANSWERABLE_LABELS if impossible else ()
    seen = {label for _, e in train for label in _names(e)}
    if len(seen) < 2:
        where = train[0][0].file
        raise ValueError(f"{where}: one class only ({', '.join(seen)}): expected at least two")
    if all(_is_integer(label) for label in seen):
        return tuple(sorted(seen, key=int))
    return tuple(sorted(seen))


def _is_integer(label: str) -> bool:
    return label.removeprefix("-").isdecimal() and label.isascii()


def _names(example: Example) -> Iterable[str]:
    if isinstance(example, TaggingExample):
        return example.tags or ()
    return (
        ()
        if not isinstance(example, TextExample) or example.label is None
        else (str(example.label),)
    )


def _check(task_type: TaskType, rows: Sequence[LocatedExample], labels: Sequence[str]) -> None:
    if task_type not in ("classification", "tagging"):
        return
    known = set(labels)
    for place, e in rows:
        unknown = [label for label in _names(e) if label not in known]
        if unknown:
            some = ", ".join(labels[:10]) + (", ..." if len(labels) > 10 else "")
            raise ValueError(f"{place}: unknown label {unknown[0]!r:.60}: expected one of {some}")
