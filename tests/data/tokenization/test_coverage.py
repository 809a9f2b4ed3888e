"""How much of a text a tokenizer covers, in several scripts."""

import bz2
import json
import re
from collections import Counter

import pytest

from bert_jax.data.tokenization import coverage
from bert_jax.data.tokenization.normalization import lost_characters
from bert_jax.data.tokenization.tokenizer import Tokenizer
from bert_jax.data.tokenization.training import train_tokenizer
from bert_jax.utils.text_lines import read_lines
from tests.helpers.cli_runner import call

KOREAN = ["한국어를 공부한다", "학교에서 공부한다"]
HINDI = ["हिन्दी में लिखी"]


@pytest.fixture(scope="module")
def korean() -> Tokenizer:
    return train_tokenizer(KOREAN * 2, "wordpiece", 26, cased=True)


def test_unknown_tokens_and_words_are_counted(korean):
    known = coverage.of_texts(korean, KOREAN)
    assert (known.unknown, known.words) == (0, 4)
    assert known.tokens == sum(map(len, korean.encode_batch(KOREAN)))
    mixed = coverage.of_texts(korean, KOREAN + HINDI)
    letters = len(HINDI[0]) - 2
    assert mixed == known.add(coverage.Coverage(3, 3, 3, letters, letters))
    assert (known.characters, known.unknown_characters) == (len("".join(KOREAN)) - 2, 0)
    assert "unknown tokens, " in str(mixed)


def test_rows_of_examples_are_counted_without_special_tokens(korean):
    ids = korean.encode(KOREAN[0])
    row = {"tokens": korean.build_row(ids)[0]}
    options = {"tokens": [row["tokens"], row["tokens"]]}
    assert coverage.of_rows(korean, [row, options]) == coverage.of_ids(korean, [ids] * 3)
    assert coverage.of_rows(korean, []) == coverage.Coverage()


def reason_of(tok, text):
    return coverage.unknown_reason(tok, Counter(text), coverage.longest_word([text]))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("में लिखी", "7 characters are not in the vocabulary, such as "),
        ("น้ำไหล", "6 characters are not in the vocabulary, such as "),
        ("한" * 101, "words have up to 101 characters, and those of more than 100 are unknown"),
        ("원" * 101, "such as 원; words have up to 101 characters"),
    ],
)
def test_many_unknown_tokens_are_warned_of_with_a_reason(text, reason, korean, caplog):
    covered = coverage.of_texts(korean, [text])
    assert covered.unknown_share == 1
    coverage.warn_of_unknown(covered, "x", reason_of(korean, text))
    assert "100.0 % of the tokens of x are unknown" in caplog.text
    assert reason in caplog.text
    caplog.clear()
    coverage.warn_of_unknown(coverage.Coverage(100, 2, 50), "x", "")
    assert not caplog.text


THAI = "ฝนตกหนัก" * 20  # a clause without a space, of more than 100 characters


@pytest.fixture(scope="module")
def thai() -> Tokenizer:
    return train_tokenizer(["ฝน ตก หนัก", THAI], "wordpiece", 26, cased=True)


def test_a_word_that_is_too_long_is_warned_of_by_its_characters(thai, caplog):
    """It is one token of many, and half of the text."""
    text = f"{'ฝน ตก ' * 40}{THAI}"
    covered = coverage.of_texts(thai, [text])
    assert (covered.unknown, covered.unknown_characters) == (1, len(THAI))
    assert covered.unknown_share < coverage.MAX_UNKNOWN
    assert covered.lost_share == len(THAI) / (len(THAI) + 160)
    assert str(covered).endswith(f", {covered.lost_share:.3%} of the text unknown")
    coverage.warn_of_unknown(covered, "x", reason_of(thai, text))
    assert re.search(r"0\.6 % of the tokens of x are unknown, with 50\.0 % of the", caplog.text)
    assert "--max-input-chars-per-word N raises the limit" in caplog.text
    longer = train_tokenizer(
        ["ฝน ตก หนัก", THAI], "wordpiece", 26, cased=True, max_input_chars_per_word=200
    )
    assert coverage.of_texts(longer, [text]).unknown_characters == 0


@pytest.mark.parametrize("segmented", [False, True])
def test_prepare_warns_of_text_that_is_lost_in_few_tokens(segmented, thai, tmp_path, capsys):
    thai.save(tmp_path / "tok")
    (tmp_path / "x.txt").write_text("\n\n".join(["ฝน ตก " * 40 + THAI] * 4), encoding="utf-8")
    options = dict(tokenizer=tmp_path / "tok", segments="doc", length=32, out=tmp_path / "c")
    flags = ["--segmented"] if segmented else []
    assert call("prepare", tmp_path / "x.txt", *flags, **options) == 0
    shown = capsys.readouterr()
    assert "pieces per word in the training rows, 50.000% of the text unknown" in shown.out
    assert "with 50.0 % of the characters" in shown.err
    file = tmp_path / "x.txt"
    assert call("tokenize", tmp_path / "tok", "--file", file, "--report") == 0
    assert "with 640 characters (50.000% of those that are not white" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["unigram", "chars"])
def test_unknown_characters_that_are_one_token_are_counted_singly(kind):
    tok = train_tokenizer(["a b a b ab"], kind, 17 if kind == "unigram" else None, cased=True)
    covered = coverage.of_texts(tok, ["ab xyz ab"])
    assert (covered.characters, covered.unknown_characters) == (7, 3)


def test_lost_characters_are_those_whose_marks_are_dropped():
    lower = train_tokenizer(["aou"], "wordpiece", 9)
    lost = lost_characters(lower, Counter("Ä が हिन्दी AÄ"))
    assert lost["Ä"] == 2
    assert set("Äが्") <= set(lost)
    assert not set("Aह ") & set(lost)


@pytest.mark.parametrize(("kind", "size"), [("wordpiece", 8), ("unigram", 17), ("chars", None)])
def test_white_space_is_lost_where_words_are_joined(kind, size):
    """WordPiece drops control characters, some of which are white space."""
    tok = train_tokenizer(["a b a b ab"], kind, size, cased=True)
    lost = lost_characters(tok, Counter("ab \t\r\u00a0\u2028\u3000\x0b\x0c\x1c\x85"))
    assert set(lost) == (set("\x0b\x0c\x1c\x85") if kind == "wordpiece" else set())


def test_the_tokenize_command_shows_pieces_and_reports(korean, tmp_path, capsys):
    korean.save(tmp_path / "tok")
    file = tmp_path / "text.txt"
    file.write_bytes(b"\xef\xbb\xbf" + "\n".join([*KOREAN, *HINDI]).encode())
    assert call("tokenize", tmp_path / "tok", KOREAN[0]) == 0
    assert "2 words" in capsys.readouterr().out
    assert call("tokenize", tmp_path / "tok", "--file", file, "--json") == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["text"] for row in rows] == KOREAN + HINDI
    assert "".join(rows[0]["characters"]) == KOREAN[0].replace(" ", "")
    assert sum(rows[0]["word_starts"]) == 2
    assert rows[2]["unknown"] == [True] * 3
    assert call("tokenize", tmp_path / "tok", "--file", file, "--report", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["lines"], report["unknown"], report["longest"][0]["line"]) == (3, 3, 3)
    assert "are not in the vocabulary" in report["unknown_reason"]
    assert call("tokenize", tmp_path / "tok") == 2
    assert "expected either TEXT or --file" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["हिन्दी में लिखी", "ฝนตกหนัก", "привет мир"])
def test_prepare_says_what_the_tokenizer_does_not_know(text, korean, tmp_path, capsys):
    korean.save(tmp_path / "tok")
    (tmp_path / "x.txt").write_text("\n\n".join([KOREAN[0], text] * 2), encoding="utf-8")
    options = dict(tokenizer=tmp_path / "tok", segments="single", length=16, out=tmp_path / "c")
    assert call("prepare", tmp_path / "x.txt", **options) == 0
    shown = capsys.readouterr()
    assert re.search(r"\d+\.\d+% unknown tokens, .* in the training rows", shown.out)
    assert "of the tokens of the training rows are unknown" in shown.err
    assert "bert-jax tokenize TOKENIZER --file TEXT --report says which" in shown.err


@pytest.mark.parametrize("name", ["x.txt", "x.txt.bz2", "x.jsonl", "x.json", "x.fasta"])
def test_a_report_reads_what_prepare_reads(name, korean, tmp_path, capsys):
    """Headers of FASTA are no text. Characters that cannot be seen are shown by their numbers."""
    lines = ["공부한다", "한국어를"]
    texts = {
        "x.txt": "\n".join(lines).encode(),
        "x.txt.bz2": bz2.compress("\n".join(lines).encode()),
        "x.jsonl": "\n".join(json.dumps({"text": line}) for line in lines).encode(),
        "x.json": "\n".join(json.dumps({"text": line}) for line in lines).encode(),
        "x.fasta": "\n".join(f">header\n{line}" for line in lines).encode(),
    }
    (tmp_path / name).write_bytes(texts[name])
    korean.save(tmp_path / "tok")
    assert call("tokenize", tmp_path / "tok", "--file", tmp_path / name, "--report", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["lines"], report["unknown"]) == (2, 0)
    assert report["characters"] == 8
    assert coverage.show_characters("가\u200e\u00a0") == "가 U+200E U+00A0"


def test_lines_end_at_newlines_alone_and_a_byte_order_mark_is_no_part_of_a_text(tmp_path):
    file = tmp_path / "x"
    file.write_bytes(b"\xef\xbb\xbfa\x0cb\r\n\nc\xe2\x80\xa8d\re")
    assert read_lines(file) == ["a\x0cb", "", "c\u2028d\re"]
    file.write_bytes(b"")
    with pytest.raises(ValueError, match="is empty: expected one text per line"):
        read_lines(file)
    file.write_bytes(b"\xff")
    with pytest.raises(ValueError, match=r"line 1: not UTF-8 .*: convert it"):
        read_lines(file)
