"""Files of pairs and retrieval sets, their rows, and batches of them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bert_jax.data.pairs import PairBatches
from bert_jax.data.tokenization import tokenizer as tokenizers
from bert_jax.data.tokenization.tokenizer import Tokenizer
from bert_jax.tasks.encode_pairs import encode_pairs, merge_equal_texts
from bert_jax.tasks.pairs import (
    Pair,
    pairs_as_retrieval_set,
    read_pair_dataset,
    read_pairs,
    read_retrieval_set,
)
from bert_jax.tasks.retrieval import hits_without, rank_judged

CORPUS = [{"_id": "d2", "title": "T", "text": "a"}, {"_id": "d1", "text": "b"}]
QUERIES = [{"_id": "q1", "text": "x"}, {"_id": "q2", "text": "y"}]
QRELS = "query-id\tcorpus-id\tscore\nq1\td2\t2\nq1\td1\t0\n"


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = tmp_path_factory.mktemp("vocab")
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghij"]
    (folder / "vocab.txt").write_text("".join(f"{p}\n" for p in pieces))
    return tokenizers.load_tokenizer(folder)


def write(file: Path, rows: list[Any]) -> Path:
    file.parent.mkdir(exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def retrieval_folder(folder: Path, **changes: Any) -> Path:
    write(folder / "corpus.jsonl", changes.get("corpus", CORPUS))
    write(folder / "queries.jsonl", changes.get("queries", QUERIES))
    (folder / "qrels.tsv").write_text(changes.get("qrels", QRELS))
    return folder


def test_a_split_is_a_file_or_a_folder(tmp_path: Path) -> None:
    for name in ("train", "dev"):
        (tmp_path / f"{name}.jsonl").write_text('{"text": "a", "positive": "b"}\n')
    retrieval_folder(tmp_path / "dev")
    with pytest.raises(ValueError, match=r"has dev.jsonl and a folder dev: expected one"):
        read_pair_dataset(tmp_path)


def test_a_dataset_of_pairs_and_a_retrieval_set(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", [{"text": "q", "positive": "p", "negatives": ["n", "m"]}])
    retrieval_folder(tmp_path / "dev")
    dataset = read_pair_dataset(tmp_path)
    assert dataset.train == [Pair("q", "p", ("n", "m"))]
    dev = dataset.splits["dev"]
    assert dev == read_retrieval_set(tmp_path / "dev")
    assert dev.queries == ["x"]  # q2 has no judgment  # type: ignore[union-attr]
    assert dev.documents == ["b", "T a"]  # in the order of their ids  # type: ignore[union-attr]
    assert dev.grades == [{1: 2.0, 0: 0.0}]  # type: ignore[union-attr]
    assert not dataset.scored


def test_a_document_is_judged_once(tmp_path: Path) -> None:
    folder = retrieval_folder(tmp_path, qrels="q1\td1\t2\nq1\td2\t1\nq1\td1\t0\n")
    with pytest.raises(ValueError, match=r"line 3: document 'd1' has two grades for query 'q1'"):
        read_retrieval_set(folder)
    again = retrieval_folder(tmp_path, qrels="q1\td1\t2\nq1\td1\t2\n")
    assert read_retrieval_set(again).grades == [{0: 2.0}]


def test_pairs_become_a_retrieval_set_of_their_texts() -> None:
    pairs = [Pair("q", "a", ("n",)), Pair("r", "b"), Pair("q", "c")]
    found = pairs_as_retrieval_set(pairs)
    assert found.documents == ["a", "n", "b", "c"]
    assert found.queries == ["q", "r"]
    assert found.grades == [{0: 1.0, 3: 1.0}, {2: 1.0}]
    assert found.own == [None, None]


def test_a_query_is_not_asked_to_rank_its_own_text() -> None:
    """Of paraphrases in both directions a model that finds the other one is perfect."""
    pairs = [Pair("a", "b"), Pair("b", "a"), Pair("c", "c")]
    found = pairs_as_retrieval_set(pairs)
    assert found.documents == ["b", "a", "c"]
    assert found.own == [1, 0, None]  # the last one is its own positive
    vectors = {"a": [1.0, 0.0], "b": [0.9, 0.1], "c": [-1.0, 0.0]}
    queries, documents = (
        np.array([vectors[text] for text in texts], np.float32)
        for texts in (found.queries, found.documents)
    )
    judged = rank_judged(queries, documents, found.grades, found.own)
    assert [j.ranks.tolist() for j in judged] == [[1], [1], [1]]
    hits = [numbers for numbers, _ in hits_without(queries, documents, 2, found.own)]
    assert hits == [[0, 2], [1, 2], [2, 0]]
    hits = [numbers for numbers, _ in hits_without(queries, documents, 3, found.own)]
    assert [len(numbers) for numbers in hits] == [2, 2, 3]


def test_equal_tokens_have_equal_numbers_and_a_query_knows_all_its_positives(
    tokenizer: Tokenizer,
) -> None:
    pairs = [Pair("a b", "c", ("d", "e")), Pair("A B", "f"), Pair("c", "a  b")]
    rows, truncated = encode_pairs(pairs, tokenizer, length=8, max_negatives=1)
    texts = [row["texts"].tolist() for row in rows]
    assert texts == [[0, 1, 2], [0, 3], [1, 0]]
    assert [row["positives"].tolist() for row in rows] == [[1, 3], [1, 3], [0]]
    assert not truncated
    prompted = encode_pairs(pairs, tokenizer, 8, query_prompt="j ", max_negatives=1).rows
    assert [row["texts"].tolist() for row in prompted] == texts  # prompts make no new text
    (row,) = encode_pairs([Pair("a", "b", ("c",))], tokenizer, 8, document_prompt="j ").rows
    assert row["query"].tolist() == [2, 5, 3]
    assert [x.tolist() for x in row["documents"]] == [[2, 14, 6, 3], [2, 14, 7, 3]]
    cut = encode_pairs([Pair("a b c d e f g", "a")], tokenizer, length=5, query_prompt="j ")
    assert cut.rows[0]["query"].tolist() == [2, 14, 5, 6, 3]
    assert cut.num_truncated == 1


def test_texts_of_equal_tokens_are_one_query_and_one_document(tokenizer: Tokenizer) -> None:
    """They have equal vectors, so no model could rank them apart."""
    pairs = [Pair("A b", "c"), Pair("a  B", "d", ("C",)), Pair("e", "a b", score=0.5)]
    merged = merge_equal_texts(pairs, tokenizer)
    assert merged == [Pair("A b", "c"), Pair("A b", "d", ("c",)), Pair("e", "A b", score=0.5)]
    found = pairs_as_retrieval_set(merged)
    assert (found.queries, found.documents) == (["A b", "e"], ["c", "d", "A b"])
    assert found.grades == [{0: 1.0, 1: 1.0}, {2: 1.0}]
    assert found.own == [2, None]


def test_batches_are_a_function_of_the_step_and_parts_of_the_whole(tokenizer: Tokenizer) -> None:
    pairs = [Pair("a b", "c d e", ("f",) * (i % 3)) for i in range(10)]
    rows = encode_pairs(pairs, tokenizer, length=8).rows
    batches = PairBatches(rows, 4, tokenizer.pad_id, seed=1)
    a, b = batches[3], next(batches.iterate(3))
    assert all(np.array_equal(a[k], b[k]) for k in a)
    assert a["query"].shape == (4, 16)
    assert a["documents"].shape == (4, 3, 16)
    assert a["position"].tolist() == [0, 1, 2, 3]
    assert a["size"].tolist() == [4 + 5 + 3 * (int(i) % 3) for i in a["row"]]
    half = PairBatches(rows, 4, tokenizer.pad_id, seed=1, parts=((1, 2),))[3]
    assert all(np.array_equal(half[k], a[k][2:]) for k in a)
    seen = [int(i) for step in range(5) for i in batches[step]["row"]]
    assert sorted(seen[:10]) == list(range(10)) == sorted(seen[10:])
    with pytest.raises(ValueError, match="10 pairs"):
        PairBatches(rows, 16, tokenizer.pad_id)


@pytest.mark.parametrize("suffix", ["csv", "tsv"])
def test_pairs_may_be_tables(suffix: str, tmp_path: Path) -> None:
    """With lists as JSON cells, and empty cells where there are no negatives."""
    comma = "," if suffix == "csv" else "\t"
    rows = [["text", "positive", "negatives"], ["a", "b", '"[""c"", ""d""]"'], ["e", "f", ""]]
    (tmp_path / f"train.{suffix}").write_text("\n".join(map(comma.join, rows)) + "\n")
    write(tmp_path / "dev.jsonl", [{"text": "a", "positive": "b"}])
    dataset = read_pair_dataset(tmp_path)
    assert dataset.train == [Pair("a", "b", ("c", "d")), Pair("e", "f")]
    scored = [["text", "text_pair", "score"], ["a", "b", "0.5"], ["c", "d", "-1"]]
    (tmp_path / f"scored.{suffix}").write_text("\n".join(map(comma.join, scored)) + "\n")
    assert [p.score for p in read_pairs(tmp_path / f"scored.{suffix}")] == [0.5, -1]
    write(tmp_path / "train.jsonl", [{"text": "a", "positive": "b"}])
    with pytest.raises(ValueError, match=f"train.jsonl and train.{suffix}: expected one file"):
        read_pair_dataset(tmp_path)


def test_quotes_that_join_rows_of_pairs_are_counted(tmp_path: Path) -> None:
    write(tmp_path / "dev.jsonl", [{"text": "a", "positive": "b"}])
    (tmp_path / "train.csv").write_text('text,positive\n"a,b\nc",d\ne,f\n')
    [note] = [n for n in read_pair_dataset(tmp_path).notes if "several lines" in n]
    assert note.endswith(": 1")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"text": "a"}, "line 2: no field `positive`; its fields are: text"),
        ({"text": "a", "positive": 3}, "`positive` is 3: expected a string"),
        ({"text": "a", "positive": "b", "negatives": "c"}, "`negatives` is not a list"),
        ({"text": "a", "text_pair": "b"}, "no field `score`"),
        ({"text": "a", "text_pair": "b", "score": "1"}, "`score` is '1'"),
        ({"text": "a", "text_pair": "b", "score": 1e39}, "`score` is 1e.39: expected a finite"),
        ({"text": "a", "text_pair": "b", "score": 10**400}, "expected a finite number, at most"),
        ({"text": "a", "positive": "b", "negatives": None}, "`negatives` is null: expected a list"),
        ({"text": "a", "text_pair": "b", "score": 1}, "1 of 2 rows have a score"),
    ],
)
def test_a_bad_row_is_named(row: dict, message: str, tmp_path: Path) -> None:
    file = write(tmp_path / "train.jsonl", [{"text": "a", "positive": "b"}, row])
    with pytest.raises(ValueError, match=message):
        read_pairs(file)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"corpus": []}, "corpus.jsonl is empty"),
        ({"corpus": [CORPUS[0], CORPUS[0]]}, "line 2: the id 'd2' occurs twice"),
        ({"corpus": [{"text": "a"}]}, "line 1: no `_id`"),
        ({"queries": [QUERIES[0], QUERIES[0]]}, "the id 'q1' occurs twice"),
        ({"qrels": "q1\td9\t1\n"}, "the id 'd9' is not in corpus.jsonl"),
        ({"qrels": "q9\td1\t1\n"}, "the id 'q9' is not in queries.jsonl"),
        ({"qrels": "q1 d1 1\n"}, "expected query, document and grade, separated by tabs"),
        ({"qrels": "q1\td1\t0\n"}, "no grade above 0"),
        ({"qrels": "q1\td1\tinf\n"}, "the grade is inf: expected a number of at most"),
        ({"qrels": "q1\td1\tnan\n"}, "the grade is nan: expected a number of at most"),
    ],
)
def test_a_bad_retrieval_set_is_refused(changes: dict, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        read_retrieval_set(retrieval_folder(tmp_path / "dev", **changes))


def test_splits_of_different_kinds_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", [{"text": "a", "positive": "b"}])
    with pytest.raises(ValueError, match=r"neither dev.jsonl nor a folder dev"):
        read_pair_dataset(tmp_path)
    write(tmp_path / "dev.jsonl", [{"text": "a", "text_pair": "b", "score": 1}])
    with pytest.raises(ValueError, match="has a score in dev alone"):
        read_pair_dataset(tmp_path)
