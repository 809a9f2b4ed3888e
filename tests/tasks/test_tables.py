"""Files as users have them: CSV and TSV with named columns, CoNLL's columns."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from bert_jax import tasks
from bert_jax.tasks import (
    Answer,
    ChoiceExample,
    QuestionExample,
    RerankExample,
    TaggingExample,
    TextExample,
    records,
    tables,
)
from bert_jax.tasks.fields import IssueCounts
from bert_jax.utils import io
from tests.helpers.labeled_rows import write_jsonl


def read(folder: Path, task: Any, suffix: str, train: str, **options: Any) -> tasks.Dataset:
    folder.mkdir(parents=True, exist_ok=True)
    for split in ("train", "dev"):
        (folder / f"{split}.{suffix}").write_text(train, encoding="utf-8")
    return tasks.read_dataset(task, folder, **options)


def test_columns_of_texts_are_read_by_name(tmp_path: Path) -> None:
    table = '\ufefflabel,text,id,text_pair\nx,"a, ""b""\nc",1,d\ny,é,2,f\n'
    data = read(tmp_path / "a", "classification", "csv", table)
    assert data.splits["dev"] == [TextExample('a, "b"\nc', "d", "x"), TextExample("é", "f", "y")]
    data = read(tmp_path / "b", "classification", "tsv", "text\tlabel\na, b\t1\nc\t0\n\n")
    assert data.splits["dev"] == [TextExample("a, b", None, "1"), TextExample("c", None, "0")]
    assert data.labels == ("0", "1")
    data = read(tmp_path / "c", "regression", "csv", "text,label\r\na,1.5\r\nb,-2\r\n")
    assert data.splits["dev"] == [TextExample("a", None, 1.5), TextExample("b", None, -2.0)]
    data = read(tmp_path / "d", "classification", "csv", 'text,label\na,"[""x"", ""y""]"\nb,[]\n')
    assert data.task_type == "multilabel"
    assert [e.label for e in data.splits["dev"]] == [("x", "y"), ()]  # type: ignore[union-attr]


def test_an_empty_second_text_is_none(tmp_path: Path) -> None:
    data = read(tmp_path, "classification", "csv", "text,text_pair,label\na,,x\nb,,y\n")
    assert data.splits["dev"] == [TextExample("a", None, "x"), TextExample("b", None, "y")]
    assert data.pairs is False


def test_columns_of_the_other_tasks_are_read_by_name(tmp_path: Path) -> None:
    table = 'tokens,tags\nAda met Tom,B-P O B-P\n"[""a b"", ""c""]",O O\n'
    data = read(tmp_path / "a", "tagging", "csv", table)
    words = [TaggingExample(("Ada", "met", "Tom"), ("B-P", "O", "B-P"))]
    assert data.splits["dev"] == [*words, TaggingExample(("a b", "c"), ("O", "O"))]
    table = "text,question,option_1,option_2,option_10,label\nt,q,a,b,c,2\nt,q,a,b,,0\n"
    data = read(tmp_path / "b", "choice", "csv", table)
    three, two = ChoiceExample("t", "q", ("a", "b", "c"), 2), ChoiceExample("t", "q", ("a", "b"), 0)
    assert data.splits["dev"] == [three, two]
    table = "id,question,context,answer,answer_start,is_impossible\n1,q,a b,b,2,\n2,r,a b,,,true\n"
    data = read(tmp_path / "c", "qa", "csv", table)
    answered = QuestionExample("1", "q", "a b", (Answer("b", 2),))
    assert data.splits["dev"] == [answered, QuestionExample("2", "r", "a b", (), True)]
    assert data.labels == tasks.ANSWERABLE_LABELS
    table = 'text,documents,labels,missing\nq,"[""a"", ""b""]","[0, 2]",\nr,"[""c""]",[0],[1]\n'
    data = read(tmp_path / "d", "rerank", "csv", table)
    found, missing = RerankExample("q", ("a", "b"), (0, 2)), RerankExample("r", ("c",), (0,), (1,))
    assert data.splits["dev"] == [found, missing]


def test_lists_of_other_tasks_may_be_anything(tmp_path: Path) -> None:
    table = "text,label,tags,documents\na,x,\"['sale', 'new']\",[\nb,y,,{\n"
    data = read(tmp_path, "classification", "csv", table)
    assert data.splits["dev"] == [TextExample("a", None, "x"), TextExample("b", None, "y")]


def test_whole_numbers_may_be_written_as_floats(tmp_path: Path) -> None:
    """As pandas writes columns of integers with empty cells."""
    table = "question,context,answer,answer_start,is_impossible\nq,a b,b,2.0,\nr,a b,,,1\n"
    data = read(tmp_path / "a", "qa", "csv", table)
    assert data.splits["dev"][0].answers == (Answer("b", 2),)  # type: ignore[union-attr]
    table = "text,question,option_1,option_2,label\nt,q,a,b,1.0\n"
    data = read(tmp_path / "b", "choice", "csv", table)
    assert data.splits["dev"][0].label == 1  # type: ignore[union-attr]
    with pytest.raises(ValueError, match=r"label 0\.5: expected the number of an option"):
        read(tmp_path / "c", "choice", "csv", table.replace("1.0", "0.5"))


def test_words_keep_spaces_that_do_not_break(tmp_path: Path) -> None:
    words = TaggingExample(("1\u202f000", "km\u00a0h", "a\u3000b"), ("O", "O", "B-X"))
    table = f"tokens,tags\n{' '.join(words.tokens)} , O  O B-X\n"
    assert read(tmp_path / "a", "tagging", "csv", table).splits["dev"] == [words]
    columns = "".join(f"{w} {t}\n" for w, t in zip(words.tokens, words.tags or (), strict=True))
    assert read(tmp_path / "b", "tagging", "conll", columns).splits["dev"] == [words]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_every_row_of_a_table_is_a_row(end: str, tmp_path: Path) -> None:
    """Rows of empty cells are predicted like others, so that line n answers row n."""
    (tmp_path / "new.csv").write_text(end.join(["text", '""', "a", "", '""', ""]), newline="")
    rows = tasks.iter_unlabeled_examples("classification", tmp_path / "new.csv")
    assert list(rows) == [TextExample(""), TextExample("a"), TextExample("")]
    (tmp_path / "new.tsv").write_text(end.join(["text\tlabel", "\t", "a\t"]), newline="")
    rows = tasks.iter_unlabeled_examples("classification", tmp_path / "new.tsv")
    assert list(rows) == [TextExample(""), TextExample("a")]


def test_positions_count_the_line_breaks_of_the_file(tmp_path: Path) -> None:
    text = "One.\r\nTwo\nAda"
    cell = text.replace("Ada", "Ada,")
    entity = '[{""start"": 10, ""end"": 13, ""label"": ""P""}]'
    (tmp_path / "train.csv").write_text(
        f'text,entities\r\n"{cell}","{entity}"\r\n', newline="", encoding="utf-8"
    )
    ((_, example),) = records.read_file_examples(
        "tagging", tmp_path / "train.csv", (issues := Counter()), labeled=True
    )
    assert isinstance(example, TaggingExample)
    assert example.text == cell
    assert dict(zip(example.tokens, example.tags or (), strict=True))["Ada"] == "B-P"
    assert not issues


def test_rows_that_quotes_swallow_are_counted(tmp_path: Path) -> None:
    """An unquoted text begins with a quote, and a later one ends with a quote."""
    swallowing = '"I know.\tneg\nIt was bad."\tpos\n'
    (tmp_path / "new.tsv").write_text(f"text\tlabel\na\tpos\n{swallowing}b\tneg\n{swallowing}")
    issues: IssueCounts = Counter()
    rows = tasks.iter_unlabeled_examples("classification", tmp_path / "new.tsv", issues=issues)
    assert len(list(rows)) == 4
    ((_, issue),) = issues
    assert "the first is on line 3" in issue
    assert issues.total() == 2
    (tmp_path / "new.csv").write_text('text,label\n"two\nlines",pos\n"a, b\nc, d, e",neg\n')
    issues = Counter()
    rows = tasks.iter_unlabeled_examples("classification", tmp_path / "new.csv", issues=issues)
    assert len(list(rows)) == 2
    assert not issues


def test_a_row_with_the_label_zero_is_not_empty(tmp_path: Path) -> None:
    data = read(tmp_path, "regression", "csv", "text,label\n,0\na,1\n")
    assert data.splits["dev"][0] == TextExample("", None, 0.0)


def test_a_class_may_have_brackets(tmp_path: Path) -> None:
    data = read(tmp_path, "classification", "csv", "text,label\na,[other]\nb,[a b]\n")
    assert data.labels == ("[a b]", "[other]")


@pytest.mark.parametrize(
    ("lines", "tokens", "counted"),
    [
        (["# id = 1", "a x y O", "", "# id = 2", "b x y O"], [("a",), ("b",)], 0),
        (["# a b", "a\tO", "", "# b O", "b\tO"], [("a",), ("b",)], 0),
        (["# O", "a O", "", "# O", "", "b O", "# O"], [("#", "a"), ("#",), ("b", "#")], 3),
        (["# two words of it", "-DOCSTART- O", "", "#1 O", "a O"], [("#1", "a")], 0),
        (["#\tO", "a\tO"], [("#", "a")], 0),
        (["# newdoc", "Ada B-P", "", "# O", "met O", "# X", ""], [("Ada",), ("#", "met", "#")], 3),
        (["# new doc", "a x X", "", "# part 2", "# x X", "b x Y"], [("a",), ("#", "b")], 3),
    ],
)
def test_comments_are_told_from_words_that_are_a_hash(
    lines: list[str], tokens: list[Any], counted: int, tmp_path: Path
) -> None:
    (tmp_path / "train.conll").write_text("\n".join(lines) + "\n")
    issues: IssueCounts = Counter()
    rows = records.read_file_examples("tagging", tmp_path / "train.conll", issues, labeled=True)
    assert [e.tokens for _, e in rows] == tokens  # type: ignore[union-attr]
    assert issues.total() == counted


CONLL = "-DOCSTART- -X- O\n\nAda NNP B-P\nmet VB O\n\nTom NNP B-P\nReed NNP I-P\n"


def test_conll_columns_are_words_and_tags(tmp_path: Path) -> None:
    data = read(tmp_path / "a", "tagging", "conll", CONLL)
    ada, tom = ("Ada", "met"), ("Tom", "Reed")
    tagged = [TaggingExample(ada, ("B-P", "O")), TaggingExample(tom, ("B-P", "I-P"))]
    assert data.splits["dev"] == tagged
    (tmp_path / "a" / "test.conll").write_text("Ada\nmet\n")
    assert tasks.read_dataset("tagging", tmp_path / "a").splits["test"] == [TaggingExample(ada)]
    rows = ["# text = Ada meets", "1\tAda\tada\tPROPN" + "\t_" * 6, "2-3\tmeets" + "\t_" * 8]
    rows += ["2\tmeet\tmeet\tVERB" + "\t_" * 6, "3\ts\ts\tPART" + "\t_" * 6, ""]
    data = read(tmp_path / "b", "tagging", "conllu", "\n".join(rows))
    assert data.splits["dev"] == [TaggingExample(("Ada", "meet", "s"), ("PROPN", "VERB", "PART"))]


@pytest.mark.parametrize(
    ("task", "suffix", "text", "message"),
    [
        ("classification", "csv", "text,label\na\n", "line 2: 1 cells, and the header has 2"),
        ("classification", "csv", "text,label\na,x\nb,c,y\n", "line 3: 3 cells, and the header"),
        ("classification", "csv", 'text,label\n"a" b,x\n', "line 2: .* its quotes doubled"),
        ("classification", "csv", 'text,label\n"a,x\n', "line 2: .* its quotes doubled"),
        ("classification", "csv", "text,text\na,x\n", "two columns have the same name"),
        ("classification", "csv", "txt,label\na,x\n", "line 2: no field `text`; its fields are"),
        ("classification", "csv", "text,label\na,\n", "line 2: `label` is null: expected a label"),
        ("classification", "csv", "text;label\na;x\n", "line 1: .*separated by ';': expected ','"),
        ("classification", "tsv", "text,label\na,x\n", "line 1: .*separated by ',': expected '"),
        ("classification", "csv", "text\tlabel\na\tx\n", "line 1: .*or as .tsv with tabs"),
        ("classification", "csv", "text,label\n", "is empty: expected rows below a header"),
        ("regression", "csv", "text,label\na,1\nb,one\n", "line 3: label 'one': expected a finite"),
        ("tagging", "csv", 'tokens,tags\n"[a",O\n', "line 2: `tokens` is not JSON"),
        ("classification", "csv", "text,label\na,\"['x', 'y']\"\n", "line 2: `label` is not JSON"),
        ("classification", "tsv", "text\tlabel\na\t['x' 'y']\n", "line 2: `label` is not JSON"),
        ("classification", "tsv", "text\tlabel\na\t[0. 1.]\n", "line 2: `label` is not JSON"),
        ("classification", "csv", "text,label\na,x\nb,y\n,\n", "line 4: all cells are empty"),
        (
            "choice",
            "csv",
            "text,question,option_1,option_2,option_3,label\nt,q,a,,c,2\n",
            "line 2: option 2 of 3 is empty",
        ),
        ("classification", "csv", "text,label\ra,x\rb,y\r", "line 1: .*carriage return alone"),
        ("tagging", "conll", "a O\nb O x\n", "line 2: 3 columns, and other lines have 2"),
        ("tagging", "conllu", "1\ta\n", "line 1: 2 columns: expected CoNLL-U's ten"),
        ("qa", "conll", "a O\n", "is for tagging, but the task is qa"),
    ],
)
def test_errors_name_file_and_line(
    task: Any, suffix: str, text: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=rf"train\.{suffix}.*{message}"):
        read(tmp_path, task, suffix, text)


def test_two_files_of_one_split_are_refused(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "train.jsonl", [{"text": "a", "label": "x"}])
    (tmp_path / "train.csv").write_text("text,label\na,x\n")
    with pytest.raises(ValueError, match=r"has train\.jsonl and train\.csv: expected one file"):
        tasks.read_dataset("classification", tmp_path)


def test_rows_to_predict_may_be_tables(tmp_path: Path) -> None:
    (tmp_path / "new.csv").write_text("text,label\na,\nb,7\n")
    rows = tasks.iter_unlabeled_examples("classification", tmp_path / "new.csv")
    assert list(rows) == [TextExample("a"), TextExample("b")]
    (tmp_path / "new.csv").write_text("text,label\na,['x']\n")  # as pandas prints lists
    rows = tasks.iter_unlabeled_examples("multilabel", tmp_path / "new.csv")
    assert list(rows) == [TextExample("a")]
    (tmp_path / "new.conll").write_text("a X\n\nb Y\n")
    rows = tasks.iter_unlabeled_examples("tagging", tmp_path / "new.conll")
    assert list(rows) == [TaggingExample(("a",)), TaggingExample(("b",))]


@pytest.mark.parametrize("suffix", sorted({*tables.SUFFIXES} - {".jsonl"}))
def test_json_lines_are_not_written_to_a_file_of_another_format(
    suffix: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"jsonl"):
        io.require_new_jsonl(tmp_path / f"answers{suffix}")
