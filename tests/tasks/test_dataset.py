"""Files to examples: every format that is read, and every error in a file."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from bert_jax import tasks
from bert_jax.tasks import Answer, ChoiceExample, QuestionExample, TaggingExample, TextExample
from bert_jax.tasks.fields import EMPTY_TEXT, IssueCounts
from bert_jax.tasks.records import read_file_examples
from bert_jax.tasks.squad import read_squad
from tests.helpers.labeled_rows import write_jsonl, write_squad, write_task_dir

TEXT = {"text": "a", "label": "x"}
TAGGED = {"tokens": ["a", "b"], "tags": ["O", "B-X"]}
CHOICE = {"text": "t", "question": "q", "options": ["a", "b"], "label": 1}
QUESTION = {"id": "1", "question": "q", "answers": [{"text": "b", "answer_start": 2}]}


def test_jsonl_rows_become_examples_in_order(tmp_path: Path) -> None:
    rows = [TEXT, {"text": "b", "text_pair": "c", "label": "y"}]
    read = tasks.read_dataset("classification", write_task_dir(tmp_path / "a", rows))
    assert read.splits["train"] == [TextExample("a", None, "x"), TextExample("b", "c", "y")]
    read = tasks.read_dataset("regression", write_task_dir(tmp_path / "b", [TEXT | {"label": -1}]))
    assert read.splits["dev"] == [TextExample("a", None, -1.0)]
    read = tasks.read_dataset("tagging", write_task_dir(tmp_path / "c", [TAGGED]))
    assert read.splits["dev"] == [TaggingExample(("a", "b"), ("O", "B-X"))]
    read = tasks.read_dataset("choice", write_task_dir(tmp_path / "d", [CHOICE]))
    assert read.splits["dev"] == [ChoiceExample("t", "q", ("a", "b"), 1)]
    assert read.labels == ()
    assert read.notes == []


def test_labels_are_sorted_and_integer_labels_numerically(tmp_path: Path) -> None:
    def labels(name: str, *some: Any) -> tuple[str, ...]:
        path = write_task_dir(tmp_path / name, [{"text": "a", "label": label} for label in some])
        return tasks.read_dataset("classification", path).labels

    assert labels("a", "b", "a", "b") == ("a", "b")
    assert labels("b", 10, 9, -1) == ("-1", "9", "10")
    assert labels("c", "10", "9") == ("9", "10")
    assert labels("d", "10", "9", "x") == ("10", "9", "x")


def test_labels_are_optional_in_the_test_split(tmp_path: Path) -> None:
    path = write_task_dir(tmp_path, [TEXT, TEXT | {"label": "y"}])
    write_jsonl(path / "test.jsonl", [{"text": "a"}, {"text": "b", "label": None}, TEXT])
    read = tasks.read_dataset("classification", path)
    assert [e.label for e in read.splits["test"]] == [None, None, "x"]  # type: ignore[union-attr]


BAD: dict[str, tuple[str, Any, str]] = {
    "no text": ("classification", {"label": "x"}, "line 2: no field `text`; its fields are: label"),
    "no label": ("classification", {"text": "a"}, "line 2: no field `label`; its fields are: text"),
    "text is null": ("classification", TEXT | {"text": None}, "`text` is null: expected a string"),
    "pair is null": ("classification", TEXT | {"text_pair": None}, "`text_pair` is null: expected"),
    "label is null": (
        "classification",
        TEXT | {"label": None},
        "`label` is null: expected",
    ),
    "label is empty": ("classification", TEXT | {"label": ""}, "the label is empty: expected"),
    "a tag is null": ("tagging", TAGGED | {"tags": ["O", None]}, "label null: expected a string"),
    "tokens are null": ("tagging", {"tokens": None}, "`tokens` is null: expected a list"),
    "beyond float32": ("regression", TEXT | {"label": 1e39}, "label 1e+39: expected at most 1e+15"),
    "a huge integer": ("regression", TEXT | {"label": 10**400}, "expected at most 1e+15 in size"),
    "text is no string": ("classification", TEXT | {"text": 1}, "`text` is 1: expected a string"),
    "list in a list": ("classification", TEXT | {"label": [[]]}, "expected a string or an integer"),
    "a label of a list is null": ("classification", TEXT | {"label": ["x", None]}, "label null"),
    "list as number": ("regression", TEXT | {"label": [1.5]}, "expected a finite number"),
    "label is true": ("classification", TEXT | {"label": True}, "expected a string or an integer"),
    "not JSON": ("classification", "{", "line 2: not JSON"),
    "no object": ("classification", "[]", "line 2 is []: expected one JSON object per line"),
    "NaN": (
        "regression",
        '{"text": "a", "label": NaN}',
        "line 2: not JSON: NaN is not",
    ),
    "infinite": ("regression", '{"text": "a", "label": 1e999}', "line 2: label inf"),
    "no number": ("regression", TEXT, "label 'x': expected a finite number"),
    "lengths": ("tagging", TAGGED | {"tags": ["O"]}, "line 2: 2 tokens and 1 tags"),
    "no tokens": ("tagging", {"tags": ["O"]}, "line 2: no field `tokens`"),
    "tokens is a string": ("tagging", TAGGED | {"tokens": "a b"}, "`tokens` is not a list"),
    "tags is a string": ("tagging", TAGGED | {"tags": "OO"}, "no list of tags"),
    "one option": ("choice", CHOICE | {"options": ["a"]}, "line 2: 1 options"),
    "option not there": ("choice", CHOICE | {"label": 2}, "label 2: expected the number of"),
}
GOOD: dict[str, list[Any]] = {
    "classification": [TEXT, TEXT | {"label": "y"}],
    "regression": [TEXT | {"label": 0.5}],
    "tagging": [TAGGED],
    "choice": [CHOICE],
}


@pytest.mark.parametrize("name", sorted(BAD))
def test_invalid_row_error_names_file_and_line(name: str, tmp_path: Path) -> None:
    kind, row, message = BAD[name]
    good: Any = GOOD[kind]
    path = write_task_dir(tmp_path, good, [good[0], row])
    with pytest.raises(ValueError, match=r"dev\.jsonl, line 2") as e:
        tasks.read_dataset(kind, path)  # type: ignore[arg-type]
    assert message in str(e.value)


def test_label_missing_from_train_is_named_with_its_line(tmp_path: Path) -> None:
    path = write_task_dir(tmp_path / "a", GOOD["classification"], [TEXT, TEXT | {"label": "z"}])
    with pytest.raises(ValueError, match=r"dev\.jsonl, line 2: unknown label 'z': .* x, y"):
        tasks.read_dataset("classification", path)
    path = write_task_dir(tmp_path / "b", [TAGGED], [TAGGED | {"tags": ["O", "I-X"]}])
    with pytest.raises(ValueError, match=r"dev\.jsonl, line 1: unknown label 'I-X'"):
        tasks.read_dataset("tagging", path)


def test_single_class_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"train\.jsonl: one class only \(x\)"):
        tasks.read_dataset("classification", write_task_dir(tmp_path, [TEXT, TEXT]))


def test_missing_or_empty_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nowhere is not a folder"):
        tasks.read_dataset("classification", tmp_path / "nowhere")
    write_jsonl(tmp_path / "train.jsonl", [TEXT])
    with pytest.raises(ValueError, match=r"has no dev\.jsonl: expected train\.jsonl and dev"):
        tasks.read_dataset("classification", tmp_path)
    write_jsonl(tmp_path / "dev.jsonl", [])
    with pytest.raises(ValueError, match=r"dev\.jsonl is empty"):
        tasks.read_dataset("classification", tmp_path)
    (tmp_path / "dev.jsonl").write_bytes(b'{"text": "\xff"}\n')
    with pytest.raises(ValueError, match=r"dev\.jsonl, line 1: not UTF-8"):
        tasks.read_dataset("classification", tmp_path)
    (tmp_path / "train.jsonl").unlink()
    (tmp_path / "dev.jsonl").unlink()
    for name in ("train.json", "dev.json"):
        with pytest.raises(ValueError, match=rf"has no {name}"):
            tasks.read_dataset("qa", tmp_path)
        write_squad(tmp_path / name, ("a b", [QUESTION]))


def test_empty_texts_are_kept_and_counted(tmp_path: Path) -> None:
    rows = [TEXT | {"text": " "}, TEXT | {"text_pair": "", "label": "y"}, TEXT]
    read = tasks.read_dataset("classification", write_task_dir(tmp_path, rows, [TEXT]))
    train, dev = tmp_path / "train.jsonl", tmp_path / "dev.jsonl"
    notes = [
        f"{train}: rows with an empty text: 2",
        f"{train}: rows without `text_pair`, which other rows have: 2 of 3",
        f"{dev}: rows without `text_pair`, which other rows have: 1 of 1",
    ]
    assert (len(read.splits["train"]), read.notes, read.pairs) == (3, notes, None)
    pairs = [TEXT | {"text_pair": "b"}, TEXT | {"text_pair": "b", "label": "y"}]
    assert tasks.read_dataset("classification", write_task_dir(tmp_path, pairs, pairs)).pairs


def test_empty_texts_to_predict_are_counted(tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "new.jsonl", [{"text": "a"}, {"text": " "}, {"text": ""}])
    issues: IssueCounts = Counter()
    assert len(list(tasks.iter_unlabeled_examples("classification", file, None, issues))) == 3
    assert issues == {(str(file), EMPTY_TEXT): 2}


def test_a_blank_text_counts_once_per_row_in_every_task_and_file(tmp_path: Path) -> None:
    rows: dict[Any, dict[str, Any]] = {
        "tagging": {"tokens": ["a", " "]},
        "choice": {"text": " ", "question": "q", "options": ["a", " "]},
        "rerank": {"text": "a", "documents": [" "]},
        "qa": {"question": " ", "context": " "},
    }
    for task, row in rows.items():
        issues: IssueCounts = Counter()
        file = write_jsonl(tmp_path / f"{task}.jsonl", [row])
        assert len(list(tasks.iter_unlabeled_examples(task, file, None, issues))) == 1
        assert issues == {(str(file), EMPTY_TEXT): 1}, task
    squad = write_squad(tmp_path / "new.json", (" ", [QUESTION]), ("a b", [{"question": " "}]))
    issues = Counter()
    assert len(read_squad(squad, issues, labeled=False, ignore_labels=True)) == 2
    assert issues == {(str(squad), EMPTY_TEXT): 2}


def test_a_row_to_predict_that_is_no_dict_is_named_and_shown() -> None:
    where = tasks.Location("rows", "row 3")
    with pytest.raises(ValueError, match=r"^rows, row 3 is 'red': expected a dict with the fields"):
        tasks.parse_unlabeled_example("classification", "red", where)


def test_unpaired_surrogates_are_replaced(tmp_path: Path) -> None:
    data = write_task_dir(tmp_path, [r'{"text": "a\ud800", "label": "x"}', TEXT | {"label": "y"}])
    read = tasks.read_dataset("classification", data)
    assert read.splits["train"][0] == TextExample("a?", None, "x")


def test_unlabeled_rows_need_no_label(tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "new.jsonl", [{"text": "a"}, TEXT, {"tokens": []}])
    with pytest.raises(ValueError, match="line 3: no field `text`"):
        list(tasks.iter_unlabeled_examples("classification", file))
    with pytest.raises(ValueError, match="does not exist"):
        list(tasks.iter_unlabeled_examples("classification", tmp_path / "nowhere.jsonl"))
    with pytest.raises(ValueError, match="is a folder: expected a file"):
        list(tasks.iter_unlabeled_examples("classification", tmp_path))
    (tmp_path / "new.jsonl.gz").write_bytes(b"\x1f\x8b")
    with pytest.raises(ValueError, match=r"not UTF-8 .*: decompress it"):
        list(tasks.iter_unlabeled_examples("classification", tmp_path / "new.jsonl.gz"))


def test_labels_of_unlabeled_rows_are_ignored(tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "new.jsonl", [{"text": "a", "label": []}, "", {"text": "b"}])
    assert list(tasks.iter_unlabeled_examples("classification", file)) == [
        TextExample("a"),
        TextExample("b"),
    ]
    file = write_jsonl(tmp_path / "new.jsonl", [{"tokens": ["a"], "tags": 1}, {"label": 1}])
    rows = tasks.iter_unlabeled_examples("tagging", file)
    assert next(rows) == TaggingExample(("a",))
    with pytest.raises(ValueError, match=r"new\.jsonl, line 2: no field `tokens`"):
        next(rows)


# ---- questions


def test_squad_files_of_both_versions_are_read(tmp_path: Path) -> None:
    none = {"id": 7, "question": "r", "answers": [], "is_impossible": True}
    write_squad(
        tmp_path / "train.json", ("a b", [QUESTION]), ("c", [none | {"plausible_answers": []}])
    )
    write_squad(tmp_path / "dev.json", ("a b", [QUESTION]))
    read = tasks.read_dataset("qa", tmp_path)
    right = QuestionExample("1", "q", "a b", (Answer("b", 2),))
    assert read.splits["train"] == [right, QuestionExample("7", "r", "c", (), True)]
    assert read.labels == tasks.ANSWERABLE_LABELS
    write_squad(tmp_path / "train.json", ("a b", [QUESTION]))
    assert tasks.read_dataset("qa", tmp_path).labels == ()


def test_answer_with_a_wrong_start_is_located_at_the_nearest_occurrence(tmp_path: Path) -> None:
    def one(text: str, start: int) -> dict[str, Any]:
        return QUESTION | {"answers": [{"text": text, "answer_start": start}]}

    questions = [one("a", 3), one("z", 0), one("", 0), QUESTION | {"answers": []}]
    write_squad(tmp_path / "train.json", ("a b a c a", questions))
    write_squad(tmp_path / "dev.json", ("a b", [QUESTION]))
    read = tasks.read_dataset("qa", tmp_path)
    answers = [e.answers for e in read.splits["train"]]  # type: ignore[union-attr]
    assert answers == [(Answer("a", 4),), (Answer("z", -1),), (Answer("", -1),), ()]
    notes = [note.removeprefix(f"{tmp_path / 'train.json'}: ") for note in read.notes]
    assert notes == [
        "answers that are elsewhere in their context than `answer_start` says: 1",
        "answers that are not in their context: 2",
        "questions without answers that are not marked impossible, left out of the metrics: 1",
    ]


def test_questions_without_an_id_have_one_each(tmp_path: Path) -> None:
    questions: list[Any] = [{"question": "q"}, {"question": "r", "id": None}]
    file = write_squad(tmp_path / "new.json", ("a b", questions), ("c", questions))
    ids = [e.id for e in tasks.iter_unlabeled_examples("qa", file)]  # type: ignore[union-attr]
    assert ids[:2] == ["data 0, paragraph 0, question 0", "data 0, paragraph 0, question 1"]
    assert len(set(ids)) == 4


def test_questions_may_be_jsonl_rows(tmp_path: Path) -> None:
    row = {"question": "q", "context": "a b"}
    columns = {"answers": {"text": ["b"], "answer_start": [2]}}
    file = write_jsonl(tmp_path / "new.jsonl", [row, row | {"id": "x"} | columns])
    (_, first), (_, second) = read_file_examples("qa", file, Counter(), labeled=False)
    assert first == QuestionExample("1", "q", "a b")
    assert second == QuestionExample("x", "q", "a b", (Answer("b", 2),))
    assert list(tasks.iter_unlabeled_examples("qa", file)) == [first, second._replace(answers=())]


@pytest.mark.parametrize("labels", [{}, {"answers": [{"text": "b"}]}, {"is_impossible": "?"}])
def test_labels_of_questions_to_predict_are_not_read(labels: Any, tmp_path: Path) -> None:
    question = {"id": "x", "question": "q"} | labels
    file = write_squad(tmp_path / "new.json", ("a b", [question]))
    assert list(tasks.iter_unlabeled_examples("qa", file)) == [QuestionExample("x", "q", "a b")]


def test_empty_lists_of_answers_mean_that_there_is_none(tmp_path: Path) -> None:
    """SQuAD 2.0 as Hugging Face has it, without `is_impossible`."""
    row = {"question": "q", "context": "a b"}
    answered = row | {"answers": {"text": ["b"], "answer_start": [2]}}
    without = row | {"answers": {"text": [], "answer_start": []}}
    for split in ("train", "dev", "test"):
        write_jsonl(tmp_path / f"{split}.jsonl", [answered, without])
    data = tasks.read_dataset("qa", tmp_path)
    assert data.labels == tasks.ANSWERABLE_LABELS
    for examples in data.splits.values():
        assert [e.impossible for e in examples] == [False, True]  # type: ignore[union-attr]
    assert sum(note.endswith("which have no answer (SQuAD 2.0): 1") for note in data.notes) == 3
    write_jsonl(tmp_path / "test.jsonl", [without])  # no split of answers: to be predicted
    (hidden,) = tasks.read_dataset("qa", tmp_path).splits["test"]
    assert not hidden.impossible  # type: ignore[union-attr]
    (tmp_path / "test.jsonl").unlink()
    for split in ("train", "dev"):  # a file that says which questions are impossible
        write_jsonl(tmp_path / f"{split}.jsonl", [answered | {"is_impossible": False}, without])
    assert tasks.read_dataset("qa", tmp_path).labels == ()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[", "not JSON"),
        ("[]", "top level: no list `data`"),
        ('{"data": [{}]}', "data 0: no list `paragraphs`"),
        ('{"data": [{"paragraphs": [{"context": "c"}]}]}', "paragraph 0: no list `qas`"),
        ('{"data": [{"paragraphs": [{"qas": [{"id": 1}]}]}]}', "no field `context`"),
        ('{"data": [{"paragraphs": [{"context": null, "qas": []}]}]}', "`context` is null"),
        ('{"data": [{"paragraphs": [{"context": 1, "qas": []}]}]}', "expected a string"),
        ('{"data": []}', "is empty"),
    ],
)
def test_files_without_squad_format_are_refused(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "new.json").write_text(content)
    with pytest.raises(ValueError, match=r"new\.json") as e:
        read_squad(tmp_path / "new.json", Counter(), labeled=False)
    assert message in str(e.value)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"question": 1}, "`question` is 1: expected a string"),
        ({"answers": "b"}, "`answers` is 'b': expected a list of objects"),
        ({"answers": [{"text": "b"}]}, "no field `answer_start`"),
        ({"answers": [{"text": "b", "answer_start": "2"}]}, "expected an integer"),
        ({"answers": {"text": ["b"], "answer_start": []}}, "`text` ['b'] and `answer_start` []:"),
        ({"is_impossible": "no"}, "expected true or false"),
        ({"is_impossible": None}, "`is_impossible` is null: expected true or false"),
        ({"is_impossible": 0}, "expected true or false"),
        ({"answers": ""}, "`answers` is '': expected a list"),
        ({"answers": {}}, "`text` null and `answer_start` null: expected two lists"),
        ({"answers": False}, "`answers` is False: expected a list"),
    ],
)
def test_invalid_question_error_names_its_id(wrong: Any, message: str, tmp_path: Path) -> None:
    file = write_squad(tmp_path / "new.json", ("a b", [QUESTION | wrong]))
    with pytest.raises(ValueError, match=r"new\.json, question '1'") as e:
        read_squad(file, Counter(), labeled=False)
    assert message in str(e.value)


# ---- RACE and TFDS


def test_race_folders_are_read(tmp_path: Path) -> None:
    """White space is collapsed."""
    text = {"article": " p\n", "questions": ["q  _", "r"], "answers": ["B", "A"], "id": "1.txt"}
    text |= {"options": [["a ", "b", "c", "d"], ["e", "f", "g", "h"]]}
    for name in ("train/high/1.txt", "train/middle/all.txt", "train/middle/2.txt", "dev/1.txt"):
        write_jsonl(tmp_path / name, [text])
    read = tasks.read_dataset("choice", tmp_path)
    once = [
        ChoiceExample("p", "q _", ("a", "b", "c", "d"), 1),
        ChoiceExample("p", "r", ("e", "f", "g", "h"), 0),
    ]
    groups = [[e._replace(group=group) for e in once] for group in ("high", "middle")]
    assert read.splits == {"train": [*groups[0], *groups[1]], "dev": once}
    write_jsonl(tmp_path / "dev/1.txt", [text | {"answers": ["B", "E"]}])
    with pytest.raises(ValueError, match=r"dev.1\.txt, line 1: not a RACE passage"):
        tasks.read_dataset("choice", tmp_path)


def test_tfds_dataset_gives_class_names(tmp_path: Path) -> None:
    import tensorflow_datasets as tfds

    def write(path: Path, splits: list[str], features: Any, rows: list[Any]) -> str:
        path.mkdir()
        identity: Any = tfds.core.dataset_info.DatasetIdentity(
            "small", tfds.core.Version("1.0.0"), str(path), __name__
        )
        described = tfds.core.DatasetInfo(
            builder=identity, features=tfds.features.FeaturesDict(features)
        )
        writer: Any = tfds.core.SequentialWriter(described, 10, file_format="array_record")
        writer.initialize_splits(splits)
        for split in splits:
            writer.add_examples({split: rows})
        writer.close_all()
        return f"tfds:{path}"

    named = tfds.features.ClassLabel(names=["y", "x"])
    features = {"sentence1": tfds.features.Text(), "sentence2": tfds.features.Text()}
    rows = [{"sentence1": "é", "sentence2": "b", "label": 1}]
    splits = ["train", "validation", "test"]
    source = write(tmp_path / "a", splits, features | {"label": named}, rows)
    read = tasks.read_dataset("classification", source)
    assert read.labels == ("y", "x")
    assert read.splits == {
        split: [TextExample("é", "b", "x")] for split in ("train", "dev", "test")
    }
    features = {"tokens": tfds.features.Sequence(tfds.features.Text())}
    features |= {"tags": tfds.features.Sequence(named)}
    rows = [{"tokens": ["a", "b"], "tags": [1, 0]}]
    source = write(tmp_path / "b", ["train", "dev"], features, rows)
    assert tasks.read_dataset("tagging", source).splits["dev"] == [
        TaggingExample(("a", "b"), ("x", "y"))
    ]
    with pytest.raises(ValueError, match=r"train, example 0: no field `text`"):
        tasks.read_dataset("classification", source)
    source = write(tmp_path / "c", ["train"], features, rows)
    with pytest.raises(ValueError, match="has the splits train: expected train, and validation"):
        tasks.read_dataset("tagging", source)
    with pytest.raises(ValueError, match=r"tfds:no_such_set cannot be opened"):
        tasks.read_dataset("tagging", "tfds:no_such_set")
