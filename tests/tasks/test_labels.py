"""Labels as users have them: missing ones, unknown ones, markers, and names that look alike."""

import json
from pathlib import Path
from typing import Any

import pytest

from bert_jax import tasks
from tests.helpers.labeled_rows import write_jsonl, write_squad, write_task_dir

QUESTION = {"id": "1", "question": "q", "answers": [{"text": "b", "answer_start": 2}]}


def texts(*labels: Any) -> list[dict[str, Any]]:
    return [{"text": "a", "label": label} for label in labels]


def labels_of(read: tasks.Dataset, split: str) -> list[Any]:
    return [e.label for e in read.splits[split]]  # type: ignore[union-attr]


@pytest.mark.parametrize("split", ["train", "dev"])
def test_a_split_without_a_label_is_refused_with_its_file(split: str, tmp_path: Path) -> None:
    empty = [{"tokens": [], "tags": []}]
    path = write_task_dir(tmp_path / "t", [{"tokens": ["a", "b"], "tags": ["O", "B-X"]}])
    write_jsonl(path / f"{split}.jsonl", empty)
    with pytest.raises(ValueError, match=rf"{split}\.jsonl: no row has a token with a tag"):
        tasks.read_dataset("tagging", path)
    for name in ("train", "dev"):
        unlabeled = [QUESTION | {"answers": []}] * 3 if name == split else [QUESTION]
        write_squad(tmp_path / "q" / f"{name}.json", ("a b", unlabeled))
    with pytest.raises(ValueError, match=rf"{split}\.json: no question has an answer"):
        tasks.read_dataset("qa", tmp_path / "q")
    path = write_task_dir(tmp_path / "c", texts("x", "y"))
    write_jsonl(path / f"{split}.jsonl", texts("none", "none"))
    with pytest.raises(ValueError, match=rf"{split}\.jsonl: no row has a label"):
        tasks.read_dataset("classification", path, unlabeled="none")


def test_a_question_whose_answer_is_absent_from_train_cannot_be_trained_on(tmp_path: Path) -> None:
    absent = QUESTION | {"answers": [{"text": "zzz", "answer_start": 0}]}
    write_squad(tmp_path / "train.json", ("a b", [absent]))
    write_squad(tmp_path / "dev.json", ("a b", [QUESTION]))
    with pytest.raises(ValueError, match=r"train\.json: no question has an answer in its context"):
        tasks.read_dataset("qa", tmp_path)


@pytest.mark.parametrize("marker", [-1, "-1", "-"])
def test_a_test_split_of_markers_is_unlabeled_and_train_has_a_class(
    marker: Any, tmp_path: Path
) -> None:
    path = write_task_dir(tmp_path, texts(0, 1, marker), texts(0, 1))
    write_jsonl(path / "test.jsonl", texts(marker, marker))
    read = tasks.read_dataset("classification", path)
    assert str(marker) in read.labels
    assert labels_of(read, "test") == [None, None]
    test_note = f"{path / 'test.jsonl'}: labels '{marker}', which mean that there is no label: 2"
    assert test_note in read.notes
    assert any(note.endswith(f"pass --objective.unlabeled={marker}") for note in read.notes)
    write_jsonl(path / "test.jsonl", texts(marker, 0))
    assert labels_of(tasks.read_dataset("classification", path), "test") == [str(marker), "0"]


def test_numbers_and_options_may_be_marked_as_missing_in_test(tmp_path: Path) -> None:
    path = write_task_dir(tmp_path / "r", texts(0.5, -1))
    write_jsonl(path / "test.jsonl", texts(-1, -1.0))
    read = tasks.read_dataset("regression", path)
    assert (labels_of(read, "dev"), labels_of(read, "test")) == ([0.5, -1.0], [None, None])
    row = {"text": "t", "question": "q", "options": ["a", "b"], "label": 1}
    path = write_task_dir(tmp_path / "c", [row])
    write_jsonl(path / "test.jsonl", [row | {"label": -1}])
    assert labels_of(tasks.read_dataset("choice", path), "test") == [None]


def test_named_markers_are_unlabeled_in_every_split(tmp_path: Path) -> None:
    """Rows of train without a label are left out; those of dev are predicted, not scored."""
    path = write_task_dir(tmp_path, texts("yes", "no", "-", "skip"), texts("yes", "-"))
    read = tasks.read_dataset("classification", path, unlabeled="-,skip")
    assert read.labels == ("no", "yes")
    assert (labels_of(read, "train"), labels_of(read, "dev")) == (["yes", "no"], ["yes", None])
    assert [note.rpartition(": ")[2] for note in read.notes] == ["1", "1", "1"]
    unmarked = tasks.read_dataset("classification", path)
    assert any("label '-' of 2 rows or words is a class" in note for note in unmarked.notes)


def test_minus_one_beside_one_is_a_class_without_a_word(tmp_path: Path) -> None:
    path = write_task_dir(tmp_path, texts(-1, 1))
    assert tasks.read_dataset("classification", path).notes == []


def test_unknown_labels_are_refused_or_counted(tmp_path: Path) -> None:
    path = write_task_dir(tmp_path / "a", texts("x", "y"), texts("x", "z", "z", "w"))
    with pytest.raises(ValueError, match=r"dev\.jsonl, line 2: unknown label 'z': .* x, y") as e:
        tasks.read_dataset("classification", path)
    assert "'z' 2, 'w' 1" in str(e.value)
    assert "--unknown-labels ignore" in str(e.value)
    read = tasks.read_dataset("classification", path, unknown_labels="ignore")
    assert labels_of(read, "dev") == ["x", None, None, None]
    [note] = read.notes
    assert note.endswith("dev.jsonl: labels that train does not have, not scored: 'z' 2, 'w' 1")
    tagged = [{"tokens": ["a", "b"], "tags": tags} for tags in (["O", "B-X"], ["O", "B-Y"])]
    path = write_task_dir(tmp_path / "b", tagged[:1], tagged)
    read = tasks.read_dataset("tagging", path, unknown_labels="ignore")
    assert read.splits["dev"][1].tags == ("O", None)  # type: ignore[union-attr]
    write_jsonl(tmp_path / "a" / "dev.jsonl", texts("z"))
    with pytest.raises(ValueError, match=r"dev\.jsonl: no row has a label"):
        tasks.read_dataset("classification", tmp_path / "a", unknown_labels="ignore")


def test_labels_that_look_alike_are_named(tmp_path: Path) -> None:
    names = ["yes", "Yes", "yes ", "ye\u0301s", "y\u00e9s", "no", "C", "C++"]
    [first, second] = tasks.read_dataset(
        "classification", write_task_dir(tmp_path, texts(*names))
    ).notes
    assert first.endswith("are classes: 'Yes', 'yes', 'yes '")
    assert second.endswith(r"are classes: 'ye\u0301s', 'y\xe9s'")


def test_a_label_of_dev_that_looks_like_one_of_train_is_named(tmp_path: Path) -> None:
    path = write_task_dir(tmp_path, texts("y\u00e9s", "no"), texts("ye\u0301s", "no"))
    alike = r"are not the same label: 'y\xe9s', 'ye\u0301s'"
    with pytest.raises(ValueError, match="unknown label") as e:
        tasks.read_dataset("classification", path)
    assert alike in str(e.value)
    notes = tasks.read_dataset("classification", path, unknown_labels="ignore").notes
    assert sum(alike in note for note in notes) == 1


def test_rows_are_counted_by_split_and_class(tmp_path: Path) -> None:
    path = write_task_dir(tmp_path, texts("x", "y", "x"), texts("x"))
    write_jsonl(path / "test.jsonl", [{"text": "a"}])
    read = tasks.read_dataset("classification", path)
    assert tasks.label_counts(read.splits, read.labels) == [
        "train: 3 rows: x 2, y 1",
        "dev: 1 rows: x 1",
        "test: 1 rows; 1 without a label",
    ]


def test_a_mnli_row_without_a_gold_label_is_left_out(tmp_path: Path) -> None:
    from bert_jax.tasks.glue import GLUE_COLUMNS

    width = max(GLUE_COLUMNS["mnli"].texts) + 3
    lines = ["\t".join(["x"] * (width - 1) + [label]) for label in ("gold", "neutral", "-")]
    for name in ("train", "dev_matched", "dev_mismatched"):
        (tmp_path / f"{name}.tsv").write_text("\n".join(lines) + "\n")
    read = tasks.read_dataset("mnli", tmp_path)
    assert (labels_of(read, "train"), labels_of(read, "dev")) == (["neutral"], ["neutral", None])
    assert json.dumps(read.notes).count("mean that there is no label: 1") == 3


def test_numbers_with_zeros_before_them_have_one_order_and_are_named(tmp_path: Path) -> None:
    read = tasks.read_dataset("classification", write_task_dir(tmp_path, texts("7", "07", "10")))
    assert read.labels == ("07", "7", "10")
    (note,) = [n for n in read.notes if "differ only in" in n]
    assert note.endswith("are classes: '07', '7'")
