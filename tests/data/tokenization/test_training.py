"""Which lines and characters a tokenizer is trained on."""

import os
import re
import subprocess
import sys
import unicodedata

import numpy as np
import pytest

from bert_jax.data.tokenization import long_lines, train_wordpiece, training


def test_a_sample_is_an_even_part_of_a_long_text_and_all_of_a_short_one(caplog):
    """It follows from the text alone, keeps its order and never holds more than was allowed."""
    texts = [f"{i:04d}" * 5 for i in range(5000)]  # 20 characters each: 100,000
    caplog.set_level("INFO", "bert_jax")
    assert list(training.sample_texts(iter(texts), 1)) == texts
    assert not caplog.text
    drawn = list(training.sample_texts(iter(texts), 0.02))
    assert "learns from 0.0 of 0.1 million" in caplog.text
    assert drawn == list(training.sample_texts(iter(texts), 0.02)) == sorted(drawn)
    assert len(drawn) == 1000
    middle = np.mean([int(text[:4]) for text in drawn])
    assert abs(middle - 2500) < 4 * 1443 / np.sqrt(1000)
    assert set(training.sample_texts(iter(texts), 0.01)) < set(drawn)
    with pytest.raises(ValueError, match="0 million characters: expected more than 0"):
        training.sample_texts(iter(texts), 0)
    with pytest.raises(ValueError, match="nan million characters: expected more than 0"):
        training.sample_texts(iter(texts), float("nan"))


POEM = ["春眠不覺曉", "處處聞啼鳥", "夜來風雨聲", "花落知多少"]
SCRIPTS = {
    "Chinese": POEM,
    "Korean": ["학교에서 한국어를 공부한다", "하늘에서 눈이 내린다"],
    "Hindi": ["हिन्दी में लिखी हुई किताब", "आसमान से बर्फ"],
    "ties": ["abababab babababa aabbaabb"] * 3 + ["é è ê ë í ì î ï ó ò ô ö ú ù û ü"],
}


def largest(texts, kind, cased=True):
    """The largest vocabulary, as the message about a larger one says."""
    with pytest.raises(ValueError, match=rf"at most \d+ for {kind}") as caught:
        training.train_tokenizer(texts, kind, 21_128, cased)
    return int(re.search(r"at most (\d+)", str(caught.value))[1])


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("cased", [True, False])
def test_the_largest_vocabulary_that_a_message_names_can_be_trained(script, cased):
    """And it has no unknown token in the text that it was trained on."""
    texts = SCRIPTS[script]
    size = largest(texts, "wordpiece", cased)
    tok = training.train_tokenizer(texts, "wordpiece", size, cased)
    assert tok.vocab_size == size
    assert tok.unk_id not in {i for ids in tok.encode_batch(texts) for i in ids}
    with pytest.raises(ValueError, match=f"at most {size} for wordpiece"):
        training.train_tokenizer(texts, "wordpiece", size + 1, cased)


def test_a_large_bound_counts_the_unused_pieces_of_the_published_layout():
    pieces = [*train_wordpiece.wordpiece_special_tokens(2000), *map(str, range(950))]
    assert train_wordpiece.largest_vocabulary(pieces, 2000) == 950 + 104
    assert train_wordpiece.largest_vocabulary(pieces[:700], 2000) == 700 - 104 + 5


def test_the_alphabet_grows_with_the_vocabulary_and_has_a_limit(caplog):
    """Characters that are left out are counted; the most frequent ones stay."""
    texts = ["".join(chr(0x4E00 + j) for j in range(i)) for i in range(1, 400)]
    for size, unknown in ((404, 0), (204, 200)):
        tok = training.train_tokenizer(texts, "wordpiece", size)
        ids = tok.encode(texts[-1])
        assert ids.count(tok.unk_id) == unknown
        assert tok.unk_id not in ids[: 399 - unknown]
    assert "200 of 399 characters" in caplog.text
    small = training.train_tokenizer(["abc abd cc", "aé aè"], "wordpiece", 11, True, alphabet=3)
    assert [p for p in "abcdéè" if small.encode(p) != [small.unk_id]] == ["a", "c"]
    with pytest.raises(ValueError, match="alphabet is 3, which takes 6 pieces of 4"):
        training.train_tokenizer(["abc cba b"], "wordpiece", 9, alphabet=3)
    with pytest.raises(ValueError, match="alphabet is 3, but bpe has no such option"):
        training.train_tokenizer(["abc"], "bpe", 9, alphabet=3)


@pytest.mark.parametrize("script", ["Chinese", "Korean", "Hindi"])
def test_unigram_learns_as_many_characters_as_it_is_told(script, caplog):
    """Where they do not fit, the message says so; those that are left out are counted."""
    texts = SCRIPTS[script] * 3
    with pytest.raises(ValueError, match="for unigram; choose more pieces, or learn fewer"):
        training.train_tokenizer(texts, "unigram", 19, cased=True)
    tok = training.train_tokenizer(texts, "unigram", 19, cased=True, alphabet=5)
    learned = {c for c in "".join(texts) if not c.isspace() and tok.unk_id not in tok.encode(c)}
    assert len(learned) == 5
    assert "characters are not in the vocabulary: " in caplog.text


@pytest.mark.parametrize("kind", ["wordpiece", "unigram"])
@pytest.mark.parametrize("text", ["ฝนตกหนักที่สุด", "天空下雪河水", "MKVLAAGIVG"])
def test_long_lines_without_spaces_are_learned_from(kind, text):
    lines = [text * (70_000 // len(text.encode()) + 1)]
    tok = training.train_tokenizer(lines, kind, largest(lines, kind), cased=True)
    assert tok.unk_id not in tok.encode(text)


def test_a_cut_is_at_a_space_and_never_between_a_letter_and_its_marks():
    parts = list(long_lines.split_long("ab cde fg", 4))
    assert parts == ["ab", " cde", " fg"]
    hindi = "हिन्दी" * 50
    parts = list(long_lines.split_long(hindi, 7))
    assert "".join(parts) == hindi
    assert all(len(p) <= 7 and not unicodedata.category(p[0]).startswith("M") for p in parts)
    assert list(long_lines.cut_for_training("x" * 65_536)) == ["x" * 65_536]


def test_text_of_marks_alone_is_refused():
    with pytest.raises(ValueError, match="no text is left after normalization"):
        training.train_tokenizer(["\u0301\u0301"], "unigram", 20)


@pytest.mark.slow
def test_wordpiece_is_the_same_in_processes_with_other_hash_seeds():
    """Letters that are equally frequent are chosen in the order of Unicode."""
    program = (
        "from bert_jax.data.tokenization import training\n"
        f"texts = {SCRIPTS['ties'] + POEM + SCRIPTS['Hindi']!r}\n"
        "print(training.train_tokenizer(texts, 'wordpiece', 40).fingerprint)\n"
    )
    prints = {
        subprocess.check_output(
            [sys.executable, "-c", program], env=os.environ | {"PYTHONHASHSEED": s}
        )
        for s in "0123"
    }
    assert len(prints) == 1
