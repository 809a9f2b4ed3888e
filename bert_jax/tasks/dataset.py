"""Read a dataset: a folder, a TFDS dataset or one of the Hub to examples.

task                      folder
classification regression tagging choice rerank    train.jsonl  dev.jsonl  (test.jsonl)
any of these and qa                         also .csv .tsv, tagging .conll (tables.py)
choice                    also RACE's own: train/ dev/ (test/)
qa                        train.json  dev.json  (test.json): SQuAD, versions 1.1 and 2.0
a GLUE name               its official .tsv files, or the folder of all nine
any                       tfds:NAME, whose features have the names of the rows' fields
                          hf:datasets/OWNER/NAME[/CONFIG], whose columns have those names

Labels of train and dev are required, those of test are optional. Invalid rows are errors that name
file and line; rows with an empty text are kept and counted in the notes.
"""

from __future__ import annotations

import typing
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from bert_jax.config import GlueTask, TaskType
from bert_jax.data.hub_dataset import is_hub_dataset
from bert_jax.tasks import glue, hub, race, tables, tfds
from bert_jax.tasks.examples import Dataset, Example, TextExample, is_labeled, task_type_of
from bert_jax.tasks.fields import IssueCounts
from bert_jax.tasks.labels import (
    UnknownLabels,
    as_multilabel,
    check_labeled,
    collect_labels,
    handle_unknown,
    has_label_list,
    label_notes,
)
from bert_jax.tasks.records import (
    MARKERS,
    LocatedExample,
    parse_unlabeled_example,
    read_file_examples,
)
from bert_jax.tasks.squad import read_squad

MULTILABEL_NOTE = "labels are lists, so the task is multi-label; rows"


def read_dataset(
    task: TaskType | GlueTask,
    folder: str | Path,
    *,
    unlabeled: str | None = None,
    unknown_labels: UnknownLabels = "refuse",
) -> Dataset:
    """The splits train, dev and, if there is one, test.

    unlabeled       names separated by commas that mean "no label"; None: - and -1 for GLUE tasks,
                    none for others
    unknown_labels  labels that train does not have: `refuse`, or `ignore`: they are not scored

    The labels are those of train, sorted (as integers if all are integers); GLUE's as published.
    A classification with a list as label in any row is `multilabel`; there a string is a list of
    one label.
    Training rows without a label are left out.

    ValueError: a missing or invalid file, field or label, a label in dev or test that train does
    not have, a train split with one class only, a train or dev split without a label.
    """
    issues: IssueCounts = Counter()
    task_type = task_type_of(task)
    markers = tuple(MARKERS) if is_glue(task) else ()
    if unlabeled is not None:
        markers = tuple(name.strip() for name in unlabeled.split(","))
    labels: tuple[str, ...] = ()
    if str(folder).startswith("tfds:"):
        splits, labels = tfds.read_tfds(task_type, str(folder), issues, markers)
    elif is_hub_dataset(str(folder)):
        splits, labels = hub.read_hub(task_type, str(folder), issues, markers)
    elif not Path(folder).is_dir():
        raise ValueError(f"{folder} is not a folder: expected one with train and dev files")
    elif is_glue(task):
        splits = glue.read_glue(task, Path(folder), issues, markers)
        labels = glue.GLUE_COLUMNS[task].labels
    else:
        splits = _read_folder(task_type, Path(folder), issues, markers)
    if task == "classification" and has_label_list(splits):
        task = task_type = "multilabel"
        issues[str(folder), MULTILABEL_NOTE] = sum(map(len, splits.values()))
        splits = {split: [as_multilabel(row) for row in rows] for split, rows in splits.items()}
    check_labeled(task_type, splits)
    labels = labels or collect_labels(task_type, splits["train"])
    splits, unknown = handle_unknown(task_type, splits, labels, unknown_labels)
    check_labeled(task_type, splits)
    notes = [f"{file}: {what}: {n}" for (file, what), n in issues.items() if n]
    notes += [*unknown, *_pair_notes(splits), *label_notes(task_type, splits, labels)]
    if task_type != "qa":  # qa_windows.encode_questions leaves questions out by itself
        splits["train"] = [(where, e) for where, e in splits["train"] if is_labeled(e)]
    examples = {split: [e for _, e in rows] for split, rows in splits.items()}
    return Dataset(task, task_type, labels, examples, notes)


def _pair_notes(splits: dict[str, list[LocatedExample]]) -> list[str]:
    """Files some of whose rows have no `text_pair`, where other rows have one."""
    texts = {
        rows[0][0].file: [e.text_pair for _, e in rows if isinstance(e, TextExample)]
        for rows in splits.values()
    }
    if not any(pair is not None for pairs in texts.values() for pair in pairs):
        return []
    missing = {file: sum(pair is None for pair in pairs) for file, pairs in texts.items()}
    return [
        f"{file}: rows without `text_pair`, which other rows have: {n} of {len(texts[file])}"
        for file, n in missing.items()
        if n
    ]


def iter_unlabeled_examples(
    task_type: TaskType,
    file: Path,
    pairs: bool | None = None,
    issues: IssueCounts | None = None,
) -> Iterator[Example]:
    """The examples of a file (tables.py; for questions also SQuAD's .json, which is read as a
    whole), one at a time, without their labels. Empty texts and what is unusual in the file itself
    are counted in `issues`, completely at its end.

    ValueError: a line that is not a JSON object, and as `parse_unlabeled_example`.
    """
    if task_type == "qa" and file.suffix == ".json":
        counts: IssueCounts = Counter() if issues is None else issues
        return (e for _, e in read_squad(file, counts, labeled=False, ignore_labels=True))
    return (
        parse_unlabeled_example(task_type, record, location, pairs, issues)
        for location, record in tables.read_records(task_type, file, issues, ignore_labels=True)
    )


def is_glue(task: TaskType | GlueTask) -> typing.TypeGuard[GlueTask]:
    """Whether a task is one of GLUE, with its own files."""
    return task in glue.GLUE_COLUMNS


def _read_folder(
    task_type: TaskType, folder: Path, issues: IssueCounts, markers: Sequence[str]
) -> dict[str, list[LocatedExample]]:
    if task_type == "choice" and race.is_race(folder):
        splits = [s for s in ("train", "dev", "test") if s != "test" or (folder / s).is_dir()]
        return {split: race.read_race(folder, split, issues) for split in splits}
    usual = ".json" if task_type == "qa" else ".jsonl"
    examples: dict[str, list[LocatedExample]] = {}
    for split in ("train", "dev", "test"):
        suffixes = (*tables.SUFFIXES, *([".json"] if task_type == "qa" else []))
        file, labeled = tables.split_file(folder, split, suffixes), split != "test"
        if file is None and labeled:
            raise ValueError(
                f"{folder} has no {split}{usual}: expected train{usual} and dev{usual} in it, or "
                f"files that end in {', '.join(tables.SUFFIXES)}"
            )
        if file is None:
            continue
        if file.suffix == ".json":
            examples[split] = read_squad(file, issues, labeled)
        else:
            examples[split] = read_file_examples(task_type, file, issues, labeled, markers)
    return examples
