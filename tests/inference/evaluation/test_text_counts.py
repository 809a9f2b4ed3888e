"""Counts of a text: the halves share no text, and what is left out or known already is said."""

from pathlib import Path

import numpy as np
import pytest

from bert_jax.data.documents import Document, read_documents
from bert_jax.data.tokenization.tokenizer import KINDS, Kind, Tokenizer
from bert_jax.data.tokenization.training import train_tokenizer
from bert_jax.inference.evaluation import evaluate, text_counts
from bert_jax.inference.evaluation.text_counts import TextReader
from tests.helpers.known_models import small_model
from tests.helpers.paths import SAMPLE

TEXT = SAMPLE.read_text()[:12_000].replace("\n\n", "\n")


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer([TEXT], "wordpiece", 300)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "text.txt").write_text(TEXT)
    return tmp_path / "text.txt"


@pytest.mark.parametrize(
    ("rows", "middle"),
    [
        ([3, 3], 3),  # between documents
        ([8], 4),  # within the only one
        ([1, 9], 5),
        ([0, 2, 0, 3, 0], 2),
        ([3, 1, 6], 4),
    ],
)
def test_halves_end_between_documents_near_the_middle(rows: list[int], middle: int) -> None:
    assert text_counts.find_middle(rows) == middle


@pytest.mark.parametrize("documents", [1, 4])
@pytest.mark.parametrize("kind", KINDS)
def test_the_middle_of_the_words_is_that_of_the_rows(
    documents: int, kind: Kind, file: Path
) -> None:
    """The text after the middle has the tokens of the rows after it."""
    tokenizer = train_tokenizer([TEXT], kind, 300)
    lines = TEXT.split(". ")
    some = [Document(tuple(lines[i::documents])) for i in range(documents)]
    counts = text_counts.count_halves(some, file, TextReader(tokenizer, 32))
    assert counts.middle is not None
    number, at = counts.middle
    assert (at == 0) == (documents > 1)
    rows = counts.rows.take(counts.by_row.index == 1)
    first = rows.tokens[0, 1 : rows.size[0] - 1].tolist()
    text = text_counts.document_text(some[number])
    ids, spans = tokenizer.encode_with_offsets(text)
    begin = int(np.searchsorted(spans[:, 0], at))
    assert ids[begin : begin + len(first)] == first
    index = counts.by_word([(number, at - 1), (number, at), (number + 1, 0)]).index
    assert index.tolist() == [0, 1, 1]


@pytest.mark.parametrize("kind", ["bpe", "chars"])
def test_the_end_of_a_line_is_no_unknown_token(kind: Kind, file: Path) -> None:
    """Where the vocabulary has no piece for a space, lines follow each other."""
    lines = tuple(line.replace(" ", "") for line in TEXT.lower().split(". "))
    tokenizer = train_tokenizer(lines, kind, 300)
    counts = text_counts.count_halves([Document(lines)], file, TextReader(tokenizer, 32))
    assert tokenizer.unk_id not in counts.rows.tokens
    assert counts.middle is not None
    rows = counts.rows.take(counts.by_row.index == 1)
    first = rows.tokens[0, 1 : rows.size[0] - 1].tolist()
    rest = text_counts.document_text(Document(lines))[counts.middle[1] :]
    text = "".join(rest.split()) if kind == "chars" else rest
    assert text.startswith(tokenizer.decode(first).strip())


def test_the_same_rows_are_scored_with_other_counts(
    file: Path, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    reader, documents = TextReader(tokenizer, 32), list(read_documents([file]))
    (tmp_path / "other.txt").write_text(TEXT[::-1])
    halves = text_counts.count_halves(documents, file, reader)
    other = text_counts.count_file(documents, file, tmp_path / "other.txt", reader)
    assert np.array_equal(halves.rows.tokens, other.rows.tokens)


def test_counts_that_are_cut_say_so(
    file: Path, tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents, reader = [Document(("some other words to score",))], TextReader(tokenizer, 32)
    (tmp_path / "many.txt").write_text(TEXT.replace("\n", "\n\n").replace(". ", ".\n\n"))
    whole = text_counts.count_file(documents, "a", tmp_path / "many.txt", reader)
    assert "the first" not in whole.made_from
    monkeypatch.setattr(text_counts, "MAX_COUNT_TOKENS", 500)
    part = text_counts.count_file(documents, "a", tmp_path / "many.txt", reader)
    assert part.made_from.startswith(f"{tmp_path}/many.txt, the first ")
    assert 500 <= int(part.made_from.split()[-2]) < 1000
    halves = text_counts.count_halves(list(read_documents([file])), file, reader)
    assert "of which at most 480 tokens are counted" in halves.made_from


def test_text_that_the_counts_know_already_is_noted(
    file: Path, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    reader, documents = TextReader(tokenizer, 32), list(read_documents([file]))
    (tmp_path / "copy.txt").write_text(f"More text.\n{TEXT}")
    (note,) = text_counts.count_file(documents, file, tmp_path / "copy.txt", reader).notes
    assert "100% of the text stands in" in note
    assert not text_counts.count_halves(documents, file, reader).notes
    twice = [*documents, *documents]
    (note,) = text_counts.count_halves(twice, file, reader).notes
    assert note.startswith("100% of the text stands in the other half")


@pytest.mark.slow
def test_what_is_not_read_as_it_stands_is_noted(tokenizer: Tokenizer, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_bytes(TEXT.encode() + "国 กา\n".encode() * 20 + b"\xff\xfe")
    result = evaluate.evaluate_text(
        small_model(tokenizer), tmp_path / "text.txt", max_rows=999, max_words=3, maskings=1
    )
    bad_bytes, unknown, dropped = result.notes
    assert bad_bytes.startswith("2 bytes of the text are not UTF-8")
    assert "of the tokens are unknown pieces" in unknown
    assert result.unknown_tokens > 0.001
    assert "which are not scored" in dropped
    assert result.to_json()["notes"] == list(result.notes)
