"""Three kinds of tokenizer, each against its own rules and against transformers."""

import itertools
import json
import random

import pytest

from bert_jax.data.sentences import split_sentences
from bert_jax.data.tokenization import added_tokens, backends, tokenizer, train_wordpiece
from bert_jax.data.tokenization.training import train_tokenizer
from tests.helpers.paths import SAMPLE

KINDS = ("wordpiece", "unigram", "bpe")
NOISE = (
    "abc XYZ [ ] @user #tag it's don't",
    "\U0001f600\U0001f469\u200d\U0001f469\u200d\U0001f467\U0001f3fd\u2764\ufe0f\U0001f1e9\U0001f1ea",
    "中文字符漢字かなカナ한국어",
    "\x00\x01\x07\x0b\x0c\x1c\x1f\x7f\x85\u200b\u200d\u2028\ufeff\xad\t\r",
    "áâç À İ ß ﬁ ½ ² ① \uff21\uff22 e\u0301",
    "Σίσυφος ΟΔΟΣ ΑΣ, Привет мир",
    "नमस्ते हिन्दी ไทย עברית العربية",
    "1,000 12, 3, 1990, 5.5 10,",
    "``quoted'' ''x'' \"-.\u2013£€()",
    " \u00a0\u3000  ",
)


@pytest.fixture(scope="module")
def paragraphs() -> list[str]:
    lines = [p for p in SAMPLE.read_text(encoding="utf-8").splitlines() if p]
    return lines[-1000:] + noise(400)


def noise(count: int) -> list[str]:
    rng = random.Random(0)
    draw = lambda: rng.choice(rng.choice(NOISE))  # noqa: E731
    return ["".join(draw() for _ in range(rng.randint(0, 40))) for _ in range(count)]


@pytest.fixture(scope="module")
def trained(paragraphs) -> dict[str, tokenizer.Tokenizer]:
    return {kind: train_tokenizer(paragraphs, kind, 2000) for kind in KINDS}


def test_special_ids_are_the_published_ones(trained):
    ids = {k: (t.pad_id, t.unk_id, t.cls_id, t.sep_id, t.mask_id) for k, t in trained.items()}
    assert ids["wordpiece"] == (0, 100, 101, 102, 103)
    assert ids["unigram"] == (0, 1, 2, 3, 4)
    assert ids["bpe"] == (1, 3, 0, 2, 1999)
    assert all(t.vocab_size == 2000 for t in trained.values())
    assert all(t.unk_id not in t.special_ids for t in trained.values())


def test_small_wordpiece_vocabularies_have_no_fillers(paragraphs):
    tok = train_tokenizer(paragraphs[:200], "wordpiece", 500)
    assert [tok.token(i) for i in range(5)] == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    assert tok.vocab_size == 500


@pytest.mark.parametrize("kind", KINDS)
def test_training_is_deterministic(kind, paragraphs, trained):
    again = train_tokenizer(iter(paragraphs), kind, 2000)
    assert again.fingerprint == trained[kind].fingerprint


@pytest.mark.parametrize("kind", KINDS)
def test_save_and_load_change_nothing(kind, paragraphs, trained, tmp_path):
    tok = trained[kind]
    tok.save(tmp_path)
    again = tokenizer.load_tokenizer(tmp_path)
    assert (again.kind, again.cased, again.fingerprint) == (tok.kind, tok.cased, tok.fingerprint)
    assert again.encode_batch(paragraphs) == tok.encode_batch(paragraphs)
    (tmp_path / "tokenizer.json").unlink()  # the bare vocabulary is enough
    assert tokenizer.load_tokenizer(tmp_path).encode_batch(paragraphs) == tok.encode_batch(
        paragraphs
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_mask_is_a_token_where_masks_are_asked_for(kind, trained):
    tok = trained[kind]
    assert tok.encode_with_masks(f"a {tok.mask_token} b").count(tok.mask_id) == 1
    assert tok.encode("") == []


def test_rows_carry_the_family_s_special_tokens(trained):
    a, b = [10, 11], [12]
    assert trained["wordpiece"].build_row(a, b) == ([101, 10, 11, 102, 12, 102], 4)
    assert trained["unigram"].build_row(a) == ([2, 10, 11, 3], 4)
    assert trained["bpe"].build_row(a, b) == ([0, 10, 11, 2, 2, 12, 2], 4)


def test_a_word_of_101_characters_is_unknown(trained):
    tok = trained["wordpiece"]
    assert tok.encode("x" * 101) == [tok.unk_id]
    assert tok.encode("x" * 100) != [tok.unk_id]


@pytest.fixture(scope="module")
def long_words(paragraphs):
    """A tokenizer whose words have up to 200 characters, as in BERT's and ELECTRA's own code."""
    return train_tokenizer(paragraphs[:300], "wordpiece", 600, max_input_chars_per_word=200)


@pytest.mark.parametrize("harm", ["none", "tokenizer.json"])
def test_the_length_of_words_can_be_the_originals(harm, long_words, paragraphs, tmp_path):
    """It changes ids, so it is a part of the fingerprint, and a saved folder keeps it."""
    long_words.save(tmp_path)
    if harm != "none":
        (tmp_path / harm).unlink()
    for tok in (long_words, tokenizer.load_tokenizer(tmp_path)):
        assert tok.encode("e" * 201) == [tok.unk_id]
        assert tok.encode("e" * 200) != [tok.unk_id]
        assert tok.fingerprint == long_words.fingerprint
    usual = train_tokenizer(paragraphs[:300], "wordpiece", 600)
    assert usual.fingerprint != long_words.fingerprint
    assert pieces(usual) == pieces(long_words)


@pytest.mark.parametrize(
    ("kind", "limit", "message"),
    [("bpe", 200, "is 200, but bpe has no such option"), ("wordpiece", 0, "at least 1")],
)
def test_a_length_of_words_that_cannot_be_is_refused(kind, limit, message):
    with pytest.raises(ValueError, match=message):
        train_tokenizer(["a word"], kind, 300, max_input_chars_per_word=limit)


def test_transformers_keeps_the_length_of_words(long_words, tmp_path):
    transformers = pytest.importorskip("transformers")
    long_words.save(tmp_path)
    hf = transformers.AutoTokenizer.from_pretrained(tmp_path)
    for text in ("e" * 101, "e" * 200, "e" * 201, "the cat"):
        assert (
            hf(text, text)["input_ids"] == long_words.build_row(*[long_words.encode(text)] * 2)[0]
        )
        assert max(hf(text, text)["token_type_ids"]) == 1


def test_a_digit_and_its_comma_are_two_pieces(trained):
    tok = trained["unigram"]
    assert not any(c.isdigit() and d == "," for p in pieces(tok) for c, d in itertools.pairwise(p))
    assert tok.token(tok.encode("in 1990, we")[-2]) == ","


def test_a_model_with_such_pieces_splits_them_and_its_pipeline_does_not(paragraphs, caplog):
    import io

    import sentencepiece

    model_file = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["in 1990, we", "1 9 0 19 99"] * 50 + paragraphs[:100]),
        model_writer=model_file,
        vocab_size=200,
        pad_id=0,
        unk_id=1,
        bos_id=-1,
        eos_id=-1,
        pad_piece="<pad>",
        control_symbols=["[CLS]", "[SEP]", "[MASK]"],
        user_defined_symbols=["1990,"],
        minloglevel=2,
    )
    model = backends.SentencePieceBackend(model_file.getvalue(), cased=False)
    assert "1990," in model.pieces
    encoded = [model.pieces[i] for i in model.encode("in 1990, we")]
    assert "1990," not in encoded
    assert "".join(encoded) == "▁in▁1990,▁we"
    added_tokens.append_words("unigram", model, ["中文"])
    assert "does not split a digit from the comma after it" in caplog.text


def pieces(tok: tokenizer.Tokenizer) -> list[str]:
    return [tok.token(i) for i in range(tok.vocab_size)]


@pytest.mark.parametrize(
    ("kind", "texts", "size", "message"),
    [
        ("wordpiece", ["a text of few words"], 4000, r"4000 pieces is more .* at most \d+ for"),
        ("bpe", ["a text of few words"], 4000, r"4000 pieces is more .* at most \d+ for bpe"),
        ("unigram", ["a text of few words"], 4000, r"4000 pieces is more .* at most \d+ for"),
        ("bpe", ["a text"], 100, r"100 pieces is too small .* at least 261"),
        ("unigram", ["a text of few words"], 20, r"20 pieces is too small .* at least \d+"),
        ("wordpiece", ["", "  \n"], 100, "the training text is empty"),
        ("wordpiece", ["a"], 0, "the vocabulary size is 0: expected at least 1"),
        ("words", ["a"], 100, "'words': expected wordpiece, unigram, bpe"),
    ],
)
def test_what_cannot_be_trained_is_refused(kind, texts, size, message):
    with pytest.raises(ValueError, match=message):
        train_tokenizer(texts, kind, size)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("harm", ["cut", "empty", "noise", "case", "mask"])
def test_a_damaged_folder_is_refused(kind, harm, trained, tmp_path):
    trained[kind].save(tmp_path)
    file = tmp_path / ("spiece.model" if kind == "unigram" else "tokenizer.json")
    data = file.read_bytes()
    if harm in ("case", "mask"):  # the settings that are read beside the vocabulary
        if harm == "case" and kind == "bpe":
            pytest.skip("its case is in tokenizer.json alone")
        file = tmp_path / "tokenizer_config.json"
        config = json.loads(file.read_text())
        case = not config["do_lower_case"]
        config |= {"do_lower_case": case} if harm == "case" else {"mask_token": "the"}
        data = json.dumps(config).encode()
    harmed = {"cut": data[: len(data) // 2], "empty": b"", "noise": b"\x00" * 999}
    file.write_bytes(harmed.get(harm, data))
    with pytest.raises(ValueError, match="train or copy it again") as caught:
        tokenizer.load_tokenizer(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_folder_without_a_tokenizer_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"expected tokenizer\.json, vocab\.txt"):
        tokenizer.load_tokenizer(tmp_path)
    with pytest.raises(ValueError, match="is not a folder"):
        tokenizer.load_tokenizer(tmp_path / "none")


def test_a_vocabulary_without_special_tokens_is_refused(tmp_path):
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\nthe\n")
    message = r"is not a valid tokenizer: its vocabulary has no \[CLS\] \[SEP\] \[MASK\]; name"
    with pytest.raises(ValueError, match=message):
        tokenizer.load_tokenizer(tmp_path)


def test_training_layout_of_wordpiece():
    published = train_wordpiece.wordpiece_special_tokens(30522)
    assert [published.index(s) for s in ("[PAD]", "[UNK]", "[MASK]")] == [0, 100, 103]


@pytest.mark.slow_unless("bpe-True")
@pytest.mark.peer
@pytest.mark.parametrize(
    ("kind", "cased"),
    [
        ("wordpiece", False),
        ("wordpiece", True),
        ("bpe", True),
        ("unigram", False),
        ("unigram", True),
    ],
)
def test_transformers_gives_the_same_ids(kind, cased, paragraphs, tmp_path):
    transformers = pytest.importorskip("transformers")
    tok = train_tokenizer(paragraphs, kind, 3000, cased)
    tok.save(tmp_path)
    hf = transformers.AutoTokenizer.from_pretrained(tmp_path, model_max_length=10**6)
    text = SAMPLE.read_text(encoding="utf-8").splitlines()
    lines = ["", *(s for p in text for s in split_sentences(p))][:8000] + noise(2200) + ["x" * 101]
    encoded = tok.encode_batch(lines)
    assert [tok.build_row(a)[0] for a in encoded] == hf(lines)["input_ids"]
    pairs = [tok.build_row(a, b) for a, b in zip(encoded, reversed(encoded), strict=True)]
    hf_pairs = hf(lines, lines[::-1])
    assert [ids for ids, _ in pairs] == hf_pairs["input_ids"]
    if kind != "bpe":
        types = [[0] * split + [1] * (len(ids) - split) for ids, split in pairs]
        assert types == hf_pairs["token_type_ids"]
    masked = f"Paris is the {tok.mask_token} of France"
    assert tok.build_row(tok.encode_with_masks(masked))[0] == hf(masked)["input_ids"]


def test_long_words_are_encoded_and_not_kept(trained):
    """In text without spaces a "word" is a sentence."""
    unigram = trained["unigram"]
    backend = unigram._backend
    long = "theyear" * 20
    assert unigram.encode_batch([f"the {long} the", "the"]) == [
        unigram.encode("the") + unigram.encode(long) + unigram.encode("the"),
        unigram.encode("the"),
    ]
    assert "the" in backend._word_ids
    assert long not in backend._word_ids
