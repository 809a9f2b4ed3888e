"""The nine tasks of GLUE, from files as they are published."""

import re
from pathlib import Path
from typing import Any

import pytest

from bert_jax import tasks
from bert_jax.tasks import TextExample

LINES = {  # a line of train or dev, and of test; the columns not in use hold other things
    "cola": ("id\tL\t*\tA", "0\tA"),
    "sst2": ("A\tL", "0\tA"),
    "mrpc": ("L\t1\t2\tA\tB", "0\t1\t2\tA\tB"),
    "stsb": ("0\tg\tf\ty\to\ts\ts\tA\tB\tL", "0\tg\tf\ty\to\ts\ts\tA\tB"),
    "qqp": ("0\t1\t2\tA\tB\tL", "0\tA\tB"),
    "mnli": ("0\tp\ti\tg\tb\tb\tp\tp\tA\tB\tx\tL", "0\tp\ti\tg\tb\tb\tp\tp\tA\tB"),
    "qnli": ("0\tA\tB\tL", "0\tA\tB"),
    "rte": ("0\tA\tB\tL", "0\tA\tB"),
    "wnli": ("0\tA\tB\tL", "0\tA\tB"),
}
PAIRS = sorted(set(LINES) - {"cola", "sst2"})
LABELS = {
    **dict.fromkeys(("cola", "sst2", "mrpc", "qqp", "wnli"), ("0", "1")),
    **dict.fromkeys(("qnli", "rte"), ("entailment", "not_entailment")),
    "mnli": ("contradiction", "entailment", "neutral"),
    "stsb": (),
}
A, B = 'he said "so\u2028it" is', '"b'


def glue(path: Path, task: str, labels: list[str], end: str = "\n") -> Path:
    path.mkdir(exist_ok=True)
    line, test = (x.replace("A", A).replace("B", B) for x in LINES[task])
    dev = ["dev_matched", "dev_mismatched"] if task == "mnli" else ["dev"]
    header = [] if task == "cola" else ["header"]
    for stem in ["train", *dev]:
        rows = [*header, *(line.replace("L", label) for label in labels)]
        (path / f"{stem}.tsv").write_text(end.join(rows) + end, encoding="utf-8", newline="")
    stem = "test_matched" if task == "mnli" else "test"
    (path / f"{stem}.tsv").write_text(f"header{end}{test}{end}", encoding="utf-8", newline="")
    return path


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("task", sorted(LINES))
def test_glue_files_are_read_by_column(task: Any, end: str, tmp_path: Path) -> None:
    labels = list(LABELS[task]) or ["3.8", "0"]
    read = tasks.read_dataset(task, glue(tmp_path, task, labels, end))
    pair = B if task in PAIRS else None
    values = [float(x) for x in labels] if task == "stsb" else labels
    right = [TextExample(A, pair, value) for value in values]
    assert read.labels == LABELS[task]
    assert read.task_type == ("regression" if task == "stsb" else "classification")
    assert read.splits.pop("test") == [TextExample(A, pair)]
    assert set(read.splits) == {"train", "dev"} | ({"dev_mismatched"} if task == "mnli" else set())
    assert all(examples == right for examples in read.splits.values())
    assert read.notes == []


def test_glue_task_is_found_in_the_folder_of_all_nine(tmp_path: Path) -> None:
    glue(tmp_path / "CoLA", "cola", ["0", "1"])
    assert len(tasks.read_dataset("cola", tmp_path).splits["train"]) == 2
    with pytest.raises(ValueError, match=r"has no train\.tsv: expected GLUE's train\.tsv"):
        tasks.read_dataset("rte", tmp_path)


def test_broken_lines_are_skipped_and_counted_for_qqp_and_refused_for_other_tasks(
    tmp_path: Path,
) -> None:
    path = glue(tmp_path / "a", "qqp", ["0", "1"])
    with (path / "train.tsv").open("a") as f:
        f.write("0\t1\t2\ta\tb\n0\t1\t2\ta\tb\tc\t1\n")
    read = tasks.read_dataset("qqp", path)
    assert len(read.splits["train"]) == 2
    note = "lines that do not have the 6 columns of their task, skipped: 2"
    assert read.notes == [f"{path / 'train.tsv'}: {note}"]
    path = glue(tmp_path / "b", "rte", ["entailment"])
    with (path / "dev.tsv").open("a") as f:
        f.write("1\ta\tentailment\n")
    with pytest.raises(ValueError, match=r"dev\.tsv, line 3: 3 columns: expected at least 4"):
        tasks.read_dataset("rte", path)


@pytest.mark.parametrize(("task", "label"), [("cola", "2"), ("mnli", "*"), ("stsb", "nan")])
def test_unknown_glue_label_is_refused(task: Any, label: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"train\.tsv, line \d: .*label '?{re.escape(label)}"):
        tasks.read_dataset(task, glue(tmp_path, task, [label]))
