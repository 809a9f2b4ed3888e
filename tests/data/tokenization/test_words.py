"""Where words begin, in every script and for every kind of tokenizer."""

import jax.numpy as jnp
import numpy as np
import pytest
import tokenizers as tokenizers_library
from tokenizers import models, pre_tokenizers

from bert_jax.data.tokenization import backends, pipelines, words
from bert_jax.data.tokenization.tokenizer import SPECIAL_TOKENS, Tokenizer
from bert_jax.data.tokenization.words import word_edges
from bert_jax.data.vocabulary import Vocabulary

KINDS = ("wordpiece", "unigram", "bpe")
SPACED = {  # scripts that write spaces between words
    "Korean": "하늘에서 눈이 내리고 강물이 얼었다",
    "Hindi": "आसमान से बर्फ गिरती है और नदी जम गई",
    "Arabic": "ينزل الثلج من السماء ويتجمد النهر",
    "Vietnamese": "tuyết rơi từ bầu trời và sông đóng băng",
    "Russian": "снег падает с неба и река замерзла",  # noqa: RUF001
}
UNSPACED = {
    "Chinese": "天空下雪河水结冰了",
    "Japanese": "空から雪がふり川がこおった",
    "Thai": "หิมะตกจากท้องฟ้าและแม่น้ำแข็งตัว",
    "Lao": "ຫິມະຕົກຈາກທ້ອງຟ້າ",
    "Khmer": "ព្រិលធ្លាក់ពីលើមេឃ",
    "Burmese": "ကောင်းကင်မှနှင်းကျသည်",
    "Tibetan": "གནམ་ནས་ཁ་བ་འབབ་པ",
}


@pytest.fixture(scope="module")
def tokenizers():
    """One of each kind, whose pieces are the characters of the texts."""
    letters = sorted({*"".join([*SPACED.values(), *UNSPACED.values()])} - {" "})
    pieces = {
        "wordpiece": [*letters, *(f"##{c}" for c in letters)],
        "unigram": ["▁", *letters],
    }
    return {k: of_pieces(k, p) for k, p in pieces.items()} | {"bpe": of_characters(letters)}


def of_pieces(kind, pieces):
    vocab = [*SPECIAL_TOKENS[kind], *pieces]
    if kind == "wordpiece":
        core = pipelines.wordpiece_pipeline({p: i for i, p in enumerate(vocab)}, lower=False)
    else:
        core = tokenizers_library.Tokenizer(models.Unigram([(p, -1.0) for p in vocab], unk_id=1))
        core.pre_tokenizer = pre_tokenizers.Metaspace()
    return Tokenizer(kind, backends.TokenizersBackend(core), cased=True)


def of_characters(letters):
    """Byte-level BPE that merges the bytes of each character."""
    to_letter = {b: c for c, b in words.byte_letters().items()}
    spelled = ["".join(to_letter[b] for b in c.encode()) for c in letters]
    merges = list(dict.fromkeys((s[:i], s[i]) for s in spelled for i in range(1, len(s))))
    pieces = dict.fromkeys([*SPECIAL_TOKENS["bpe"], *to_letter.values(), *map("".join, merges)])
    vocab = {p: i for i, p in enumerate(pieces)}
    backend = backends.TokenizersBackend(pipelines.byte_bpe_pipeline(vocab, merges))
    return Tokenizer("bpe", backend, cased=True)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("script", SPACED)
def test_in_scripts_with_spaces_words_are_what_stands_between_them(script, kind, tokenizers):
    """Whatever pieces a word has, its first one begins it and no other one does."""
    tokenizer = tokenizers[kind]
    text = SPACED[script].split()
    pieces = [
        tokenizer.encode((" " if kind == "bpe" and i else "") + w) for i, w in enumerate(text)
    ]
    expected = [i == 0 for word in pieces for i in range(len(word))]
    expected[0] = kind != "bpe"  # its first word has no mark; masking takes it as a word
    ids = np.array([i for word in pieces for i in word])
    assert len(ids) > 1.5 * len(text)
    assert tokenizer.word_edges().begins_word(ids).tolist() == expected


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("script", UNSPACED)
def test_in_scripts_without_spaces_every_piece_is_a_word(script, kind, tokenizers):
    tokenizer = tokenizers[kind]
    ids = np.array(tokenizer.encode(UNSPACED[script]))
    begins = tokenizer.word_edges().begins_word(ids)
    assert begins[kind == "unigram" :].all()
    assert len(ids) > 4


def test_a_word_ends_where_the_script_does():
    """As if there were spaces around the characters, as BERT puts them around Chinese ones."""
    edges = word_edges("unigram", ["▁私", "は", "Ja", "va", "▁use", "を", "。", "」"])
    assert edges.begins_word(np.arange(8)).tolist() == [1, 1, 1, 0, 1, 1, 1, 0]


def test_byte_level_pieces_of_a_part_of_a_character_are_no_words():
    """Thai ก is E0 B8 81, Hindi क is E0 A4 95, and 天 is E5 A4 A9: E0 alone says nothing."""
    letter = {b: c for c, b in words.byte_letters().items()}
    data = [b"\xe0", b"\xe0\xb8", b"\xe0\xa4", b"\x95", b"\xe5", b"\xa4\xa9", "天".encode(), b"a"]
    edges = word_edges("bpe", ["".join(letter[b] for b in d) for d in data])
    assert edges.starts.tolist() == [0, 1, 0, 0, 1, 0, 1, 0]
    assert edges.ends.tolist() == [0, 0, 0, 0, 0, 0, 1, 0]


def test_text_that_was_segmented_has_words_between_spaces(tokenizers):
    for kind in ("unigram", "bpe"):
        ids = np.array(tokenizers[kind].encode("แม่น้ำ แข็งตัว 河水 结冰"))
        begins = tokenizers[kind].word_edges("spaces").begins_word(ids)
        assert begins.sum() == (4 if kind == "unigram" else 3)  # the first one has no mark


def test_albert_s_rule_is_for_english():
    starts = ("▁the", "▁", ",", "€", "é", "1", "'s", "<unk>")
    pieces = (*starts, "ing", "a.b", "x,")
    edges = word_edges("unigram", pieces, rule="albert")
    assert [p for p, s in zip(pieces, edges.starts, strict=True) if s] == list(starts)
    assert not edges.ends.any()
    default = word_edges("unigram", pieces)
    assert [p for p, s in zip(pieces, default.starts, strict=True) if s] == ["▁the", "▁"]


def test_after_a_special_token_byte_level_words_begin_and_others_may_continue():
    begins = [
        word_edges(k, ["a", "b"], special=[0]).begins_word(np.array([0, 1, 1])) for k in KINDS
    ]
    assert [b.tolist() for b in begins] == [[1, 1, 1], [0, 0, 0], [0, 1, 0]]


def test_masking_and_statistics_see_the_same_words(tokenizers):
    """One function for arrays of NumPy and of JAX."""
    vocabulary = Vocabulary.of(tokenizers["unigram"])
    ids = np.array([tokenizers["unigram"].encode(SPACED["Korean"])] * 2)
    on_device = vocabulary.words.begins_word(jnp.asarray(ids))
    assert on_device.tolist() == vocabulary.words.begins_word(ids).tolist()
