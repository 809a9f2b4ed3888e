"""The nine GLUE tasks from their official folders of tab-separated files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from bert_jax.config import GlueTask
from bert_jax.tasks import glue_diagnostic
from bert_jax.tasks.examples import TextExample
from bert_jax.tasks.fields import (
    EMPTY_TEXT,
    NO_LABEL,
    IssueCounts,
    Location,
    is_blank,
    parse_label,
    parse_number,
)
from bert_jax.tasks.records import LocatedExample
from bert_jax.tasks.text_files import read_lines


class GlueColumns(NamedTuple):
    """The columns of a task's files, counted from 0 (bert run_classifier.py, albert
    classifier_utils.py, electra classification_tasks.py)."""

    folder: str  # the official folder name
    texts: tuple[int, ...]  # columns of the texts in train and dev
    label: int  # column of the label; -1: the last one
    test: tuple[int, ...]  # columns of the texts in test
    labels: tuple[str, ...] = ("0", "1")
    header: bool = True  # whether train and dev have a header line; test always has one
    fields: int | None = None  # number of columns of train and dev; other lines are skipped


ENTAILMENT_LABELS = ("entailment", "not_entailment")
GLUE_COLUMNS: dict[GlueTask, GlueColumns] = {
    "cola": GlueColumns("CoLA", (3,), 1, (1,), header=False),
    "sst2": GlueColumns("SST-2", (0,), 1, (1,)),
    "mrpc": GlueColumns("MRPC", (3, 4), 0, (3, 4)),
    "stsb": GlueColumns("STS-B", (7, 8), -1, (7, 8), labels=()),
    "qqp": GlueColumns("QQP", (3, 4), 5, (1, 2), fields=6),
    "mnli": GlueColumns("MNLI", (8, 9), -1, (8, 9), ("contradiction", "entailment", "neutral")),
    "qnli": GlueColumns("QNLI", (1, 2), -1, (1, 2), ENTAILMENT_LABELS),
    "rte": GlueColumns("RTE", (1, 2), -1, (1, 2), ENTAILMENT_LABELS),
    "wnli": GlueColumns("WNLI", (1, 2), -1, (1, 2)),
}
SPLITS = {"train": "train", "dev": "dev", "test": "test"}
MNLI_SPLITS = {
    "train": "train",
    "dev": "dev_matched",
    "dev_mismatched": "dev_mismatched",
    "test": "test_matched",
    "test_mismatched": "test_mismatched",
}
SKIPPED_LINES = "lines that do not have the {} columns of their task, skipped"


def read_glue(
    task: GlueTask, folder: Path, issues: IssueCounts, markers: Sequence[str] = ()
) -> dict[str, list[LocatedExample]]:
    """All splits; of mnli also GLUE's diagnostic set, if it is there. `folder` is the task's own or
    the one that holds all nine. Labels among `markers` mean that there is none.

    ValueError: a missing or empty train or dev file, a line with too few columns, an invalid
    label.
    """
    columns = GLUE_COLUMNS[task]
    if not (folder / "train.tsv").exists() and (folder / columns.folder).is_dir():
        folder = folder / columns.folder
    names = MNLI_SPLITS if task == "mnli" else SPLITS
    splits: dict[str, list[LocatedExample]] = {}
    for split, stem in names.items():
        file = folder / f"{stem}.tsv"
        if file.exists():
            splits[split] = _read_file(columns, file, issues, split.startswith("test"), markers)
        elif not split.startswith("test"):
            files = ", ".join(f"{s}.tsv" for k, s in names.items() if not k.startswith("test"))
            raise ValueError(f"{folder} has no {file.name}: expected GLUE's {files} in it")
    diagnostic = glue_diagnostic.find_diagnostic(folder) if task == "mnli" else None
    if diagnostic is not None:
        splits[glue_diagnostic.SPLIT] = glue_diagnostic.read_diagnostic(diagnostic, issues)
    return splits


def _read_file(
    columns: GlueColumns, file: Path, issues: IssueCounts, test: bool, markers: Sequence[str]
) -> list[LocatedExample]:
    examples: list[LocatedExample] = []
    skip = columns.header or test
    for n, (location, line) in enumerate(read_lines(file)):
        if not line or (skip and n == 0):
            continue
        fields = line.split("\t")  # fields are never quoted: quotation marks are text
        if columns.fields and not test and len(fields) != columns.fields:
            issues[str(file), SKIPPED_LINES.format(columns.fields)] += 1
            continue
        example = _parse_line(columns, fields, location, test, markers)
        if example.label is None and not test:
            issues[str(file), NO_LABEL.format(fields[columns.label])] += 1
        examples.append((location, example))
        issues[str(file), EMPTY_TEXT] += is_blank(*example[:2])
    if not examples:
        raise ValueError(f"{file} is empty: expected tab-separated rows")
    return examples


def _parse_line(
    columns: GlueColumns,
    fields: list[str],
    location: Location,
    test: bool,
    markers: Sequence[str],
) -> TextExample:
    texts = columns.test if test else columns.texts
    label_column = columns.label if columns.label >= 0 else max(texts) + 1
    num_columns = 1 + (max(texts) if test else max(*texts, label_column))
    if len(fields) < num_columns:
        raise ValueError(
            f"{location}: {len(fields)} columns: expected at least {num_columns}, separated by "
            "tabs and without quotes"
        )
    text, *pair = (fields[i] for i in texts)
    if test:
        return TextExample(text, *pair)
    return TextExample(
        text, pair[0] if pair else None, _parse_label(columns, fields, location, markers)
    )


def _parse_label(
    columns: GlueColumns, fields: list[str], location: Location, markers: Sequence[str]
) -> str | float | None:
    raw = fields[columns.label]
    if raw in markers:
        return None
    if columns.labels:
        return parse_label(raw, location)
    try:
        number = float(raw)
    except ValueError:
        raise ValueError(f"{location}: label {raw!r:.40}: expected a finite number") from None
    return parse_number(number, location)
