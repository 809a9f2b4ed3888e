"""The nine GLUE tasks from their official folders of tab-separated files."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from bert_jax.config import GlueTask
from bert_jax.tasks.examples import TextExample
from bert_jax.tasks.records import (
    EMPTY_TEXT,
    IssueCounts,
    LocatedExample,
    Location,
    parse_label,
    parse_number,
    read_lines,
)


class GlueColumns(NamedTuple):
    """Where things stand in a line, from 0 (the originals' readers: bert run_classifier.py,
    albert classifier_utils.py, electra classification_tasks.py)."""

    folder: str  # as it is published
    texts: tuple[int, ...]
    label: int  # -1: the last one
    test: tuple[int, ...]
    labels: tuple[str, ...] = ("0", "1")
    header: bool = True  # of train and dev; test always has one
    fields: int | None = None  # train and dev: lines of another number are skipped


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
SKIPPED_LINES = "lines that have not the {} columns of their task, skipped"


def read_glue(task: GlueTask, folder: Path, odd: IssueCounts) -> dict[str, list[LocatedExample]]:
    """All splits; `folder` is the task's own or the one that holds all nine.

    ValueError: no train or dev file, an empty one, a line with too few columns, a label that
    the task does not have.
    """
    columns = GLUE_COLUMNS[task]
    if not (folder / "train.tsv").exists() and (folder / columns.folder).is_dir():
        folder = folder / columns.folder
    names = MNLI_SPLITS if task == "mnli" else SPLITS
    found: dict[str, list[LocatedExample]] = {}
    for split, stem in names.items():
        file = folder / f"{stem}.tsv"
        if file.exists():
            found[split] = _read_file(columns, file, odd, test=split.startswith("test"))
        elif not split.startswith("test"):
            files = ", ".join(f"{s}.tsv" for k, s in names.items() if not k.startswith("test"))
            raise ValueError(f"{folder} has no {file.name}: expected GLUE's {files} in it")
    return found


def _read_file(
    columns: GlueColumns, file: Path, odd: IssueCounts, test: bool
) -> list[LocatedExample]:
    found: list[LocatedExample] = []
    skip = columns.header or test
    for n, (place, line) in enumerate(read_lines(file)):
        if not line or (skip and n == 0):
            continue
        fields = line.split("\t")  # nothing is quoted: a quotation mark is text
        if columns.fields and not test and len(fields) != columns.fields:
            odd[str(file), SKIPPED_LINES.format(columns.fields)] += 1
            continue
        example = _example(columns, fields, place, test)
        found.append((place, example))
        odd[str(file), EMPTY_TEXT] += not all(t.strip() for t in example[:2] if t is not None)
    if not found:
        raise ValueError(f"{file} is empty: expected tab-separated rows")
    return found


def _example(columns: GlueColumns, fields: list[str], place: Location, test: bool) -> TextExample:
    at = columns.test if test else columns.texts
    last = max(at) if test else max(*at, columns.label if columns.label >= 0 else max(at) + 1)
    needed = last + 1
    if len(fields) < needed:
        raise ValueError(
            f"{place}: {len(fields)} columns, expected at least {needed}, with tabs between them "
            "and no quotes"
        )
    text, *pair = (fields[i] for i in at)
    if test:
        return TextExample(text, *pair)
    raw = fields[columns.label]
    if columns.labels:
        label: str | float = parse_label(raw, place)
    else:
        try:
            label = parse_number(float(raw), place)
        except ValueError:
            raise ValueError(f"{place}: label {raw!r:.40}: expected a finite number") from None
    return TextExample(text, pair[0] if pair else None, label)
