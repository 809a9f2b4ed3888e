# ruff: noqa: E402  what follows is skipped where the peers are absent
"""Tokenizers that others train: ids equal transformers' for one text and two, and after saving."""

from __future__ import annotations

import json
import random
import sys
import unicodedata
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

T = pytest.importorskip("transformers")

from bert_jax.config import Encoder
from bert_jax.convert.export.files import copy_tokenizer
from bert_jax.data.tokenization.special_tokens import read_template
from bert_jax.data.tokenization.tokenizer import load_tokenizer
from tests.helpers.paths import SAMPLE

pytestmark = pytest.mark.peer

SCRIPTS = [
    "LATIN",
    "GREEK",
    "CYRILLIC",
    "HEBREW",
    "ARABIC",
    "DEVANAGARI",
    "THAI",
    "HANGUL",
    "HIRAGANA",
    "CJK",
]


@cache
def lines() -> list[str]:
    """10,000 lines: words of the sample text among words of ten scripts, with odd spaces."""
    points: dict[str, list[str]] = {s: [] for s in SCRIPTS}
    for c in map(chr, range(sys.maxunicode)):
        script = unicodedata.name(c, "").split(" ")[0]
        if script in points and len(points[script]) < 200:
            points[script].append(c)
    rng, words = random.Random(0), SAMPLE.read_text(encoding="utf-8")[:100_000].split()
    spaces = [" ", " ", " ", "  ", "\t", "\u3000", ", "]

    def word() -> str:
        if rng.random() < 0.4:
            return rng.choice(words)
        return "".join(rng.choices(points[rng.choice(SCRIPTS)], k=rng.randint(1, 6)))

    def line() -> str:
        return "".join(word() + rng.choice(spaces) for _ in range(rng.randint(1, 8)))

    return [line() for _ in range(10_000)]


def template(core: tokenizers.Tokenizer, cls: str, sep: str, doubled: bool = False) -> Any:
    return processors.TemplateProcessing(
        single=f"{cls} $A {sep}",
        pair=f"{cls} $A {sep} {sep} $B {sep}" if doubled else f"{cls} $A {sep} $B {sep}",
        special_tokens=[(t, core.token_to_id(t)) for t in (cls, sep)],
    )


BYTES = [f"<0x{b:02X}>" for b in range(256)]
ROLES = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")


def byte_bpe() -> tuple[Any, list[str]]:
    """ModernBERT's: NFC, [CLS] and [SEP] from the post-processor, added tokens for spaces."""
    special = ["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"]
    core = tokenizers.Tokenizer(models.BPE())
    core.normalizer = normalizers.NFC()
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    core.train_from_iterator(
        lines()[:2000],
        trainers.BpeTrainer(vocab_size=600, initial_alphabet=alphabet, show_progress=False),
    )
    core.add_tokens([tokenizers.AddedToken("    ", normalized=True)])
    core.add_special_tokens(
        [tokenizers.AddedToken(s, special=True, lstrip=s == "[MASK]") for s in special]
    )
    core.decoder = decoders.ByteLevel()
    core.post_processor = template(core, "[CLS]", "[SEP]")
    return core, ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def sentencepiece_bpe() -> tuple[Any, list[str]]:
    """mmBERT's and Gemma's: ▁ for spaces, bytes for what is unknown."""
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    core = tokenizers.Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    core.normalizer = normalizers.Replace(" ", "▁")
    core.train_from_iterator(
        lines()[:300],
        trainers.BpeTrainer(
            vocab_size=700, special_tokens=[*special, *BYTES], limit_alphabet=200,
            show_progress=False,
        ),
    )  # fmt: skip
    # the bytes are pieces, not added tokens
    spec = core.to_str().replace('"special": true', '"special": false')
    core = tokenizers.Tokenizer.from_str(without_added(spec, BYTES))
    core.add_special_tokens(special)
    core.post_processor = template(core, "<bos>", "<eos>")
    return core, ["<pad>", "<unk>", "<bos>", "<eos>", "<mask>"]


def without_added(spec: str, tokens: list[str]) -> str:
    import json

    values = json.loads(spec)
    values["added_tokens"] = [t for t in values["added_tokens"] if t["content"] not in tokens]
    return json.dumps(values)


def unigram(prefix: str = "never", doubled: bool = False, fallback: bool = True) -> Any:
    """The Japanese ModernBERTs'; with a prefix and two separators XLM-RoBERTa's, which has none of
    the bytes."""
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    words = {w for line in lines()[:300] for w in line.split()}
    vocab = [(s, 0.0) for s in special] + ([(b, 0.0) for b in BYTES] if fallback else [])
    letters = sorted({c for w in words for c in w})[:400]
    pieces = sorted({"▁" + w for w in words} | {"▁", *letters})
    vocab += [(p, -8.0 - len(p) / 7 - i / 1e4) for i, p in enumerate(pieces)]
    core = tokenizers.Tokenizer(models.Unigram(vocab, unk_id=3, byte_fallback=fallback))
    core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=prefix)
    core.add_special_tokens(
        [tokenizers.AddedToken(s, special=True, lstrip=s == "<mask>") for s in special]
    )
    core.post_processor = template(core, "<s>", "</s>", doubled)
    return core, ["<pad>", "<unk>", "<s>", "</s>", "<mask>"]


def xlm_roberta() -> Any:
    return unigram("always", doubled=True, fallback=False)


@pytest.fixture(scope="module", params=[byte_bpe, sentencepiece_bpe, unigram, xlm_roberta])
def folder(request: Any, tmp_path_factory: Any) -> Path:
    core, special = request.param()
    out = tmp_path_factory.mktemp("hf")
    roles = dict(zip(ROLES, special, strict=True))
    T.PreTrainedTokenizerFast(tokenizer_object=core, **roles).save_pretrained(out)
    return out


def test_an_export_of_a_model_with_token_types_gives_those_of_our_rows(
    folder: Path, tmp_path: Path
) -> None:
    """The foreign templates give none, and the model was trained with them."""
    ours = load_tokenizer(folder)
    ours.save(tmp_path / "run" / "tokenizer")
    copy_tokenizer(tmp_path / "run", tmp_path / "out", Encoder(token_types=2))
    theirs = T.AutoTokenizer.from_pretrained(tmp_path / "out")(*lines()[:2])
    ids, first = ours.build_row(*ours.encode_batch(lines()[:2]))
    assert theirs["input_ids"] == ids
    assert theirs["token_type_ids"] == [0] * first + [1] * (len(ids) - first)


def test_ids_equal_transformers(folder: Path, tmp_path: Path) -> None:
    """One text and two, truncated and padded; saved and loaded again; masks in a text."""
    ours, theirs = load_tokenizer(folder), T.AutoTokenizer.from_pretrained(folder)
    assert ours.vocab_size == len(theirs)
    ids = ours.encode_batch(lines())
    singles = theirs(lines(), truncation=True, max_length=12, padding="max_length")["input_ids"]
    room = ours.special_tokens.text_capacity(12, 1)
    rows = [ours.build_row(x[:room])[0] for x in ids]
    assert [r + [ours.pad_id] * (12 - len(r)) for r in rows] == singles
    pairs = theirs(lines()[:1000], lines()[1000:2000])["input_ids"]
    assert [ours.build_row(a, b)[0] for a, b in zip(ids, ids[1000:2000], strict=False)] == pairs

    mask = ours.mask_token
    for text in (f"the {mask} of", f"{mask} in {mask}", f"a {mask}."):
        assert ours.build_row(ours.encode_with_masks(text))[0] == theirs(text)["input_ids"]

    ours.save(tmp_path)
    again, reopened = load_tokenizer(tmp_path), T.AutoTokenizer.from_pretrained(tmp_path)
    assert again.fingerprint == ours.fingerprint
    assert again.encode_batch(lines()[:500]) == ids[:500]
    assert reopened(lines()[:300], lines()[300:600])["input_ids"] == pairs_of(ours, ids)


def pairs_of(tokenizer: Any, ids: list[list[int]]) -> list[list[int]]:
    return [tokenizer.build_row(a, b)[0] for a, b in zip(ids[:300], ids[300:600], strict=True)]


def test_other_frames_are_refused_by_name() -> None:
    spec = {"type": "TemplateProcessing", "single": [], "pair": [], "special_tokens": {}}
    with pytest.raises(ValueError, match="its template is  for one text"):
        read_template(spec)
    with pytest.raises(ValueError, match="its post-processor is Other"):
        read_template({"type": "Other"})
    assert read_template(None) is None


def write_bare(folder: Path, core: Any, settings: dict[str, Any], model_type: str) -> Path:
    """A folder whose settings do not name the special tokens."""
    folder.mkdir(exist_ok=True)
    core.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
    return folder


@pytest.mark.parametrize("model_type", ["xlm-roberta", "camembert"])
def test_the_class_gives_the_special_tokens_that_the_settings_do_not_name(
    model_type: str, tmp_path: Path
) -> None:
    """As these models are published."""
    folder = write_bare(tmp_path, xlm_roberta()[0], {"model_max_length": 512}, model_type)
    ours, theirs = load_tokenizer(folder), T.AutoTokenizer.from_pretrained(folder)
    text = "the <mask> of"
    assert ours.build_row(ours.encode_with_masks(text))[0] == theirs(text)["input_ids"]
    assert (ours.pad_id, ours.unk_id, ours.mask_id) == (1, 3, 4)


@pytest.mark.parametrize("name", ["TokenizersBackend", "BigBirdTokenizer"])
def test_a_sentencepiece_model_beside_a_pipeline_counts_for_albert_alone(
    name: str, tmp_path: Path
) -> None:
    core, special = xlm_roberta()
    settings = dict(zip(ROLES, special, strict=True)) | {"tokenizer_class": name}
    folder = write_bare(tmp_path, core, settings, "xlm-roberta")
    ids = load_tokenizer(folder).encode_batch(lines()[:300])
    (folder / "spiece.model").write_bytes(b"another model")
    assert load_tokenizer(folder).encode_batch(lines()[:300]) == ids
    (folder / "tokenizer.json").unlink()
    message = "empty" if name == "TokenizersBackend" else "is a BigBirdTokenizer, which no"
    (folder / "spiece.model").write_bytes(b"")
    with pytest.raises(ValueError, match=message):
        load_tokenizer(folder)


def test_a_space_before_the_first_piece_alone_is_not_put_behind_a_mask(tmp_path: Path) -> None:
    core, special = unigram("first")
    roles = dict(zip(ROLES, special, strict=True))
    T.PreTrainedTokenizerFast(tokenizer_object=core, **roles).save_pretrained(tmp_path)
    ours, theirs = load_tokenizer(tmp_path), T.AutoTokenizer.from_pretrained(tmp_path)
    for text in ("the<mask>of", "the <mask> of", "<mask>in<mask>"):
        assert ours.build_row(ours.encode_with_masks(text))[0] == theirs(text)["input_ids"]
    assert ours.sep_id not in ours.encode_with_masks("the </s> of <mask>.")


def wordpiece(split: Any, normalizer: Any, prefix: str = "##") -> tokenizers.Tokenizer:
    vocab = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", f"{prefix}1", "1", "-", "a1", "é"]
    ids = {piece: i for i, piece in enumerate(vocab)}
    model = models.WordPiece(ids, unk_token="[UNK]", continuing_subword_prefix=prefix)
    core = tokenizers.Tokenizer(model)
    core.pre_tokenizer, core.normalizer = split, normalizer
    core.add_special_tokens(vocab[:5])
    core.post_processor = template(core, "[CLS]", "[SEP]")
    return core


BERT_SPLIT, BERT_NORMAL = pre_tokenizers.BertPreTokenizer(), normalizers.BertNormalizer()


@pytest.mark.parametrize(
    ("split", "normalizer", "own"),
    [
        (BERT_SPLIT, BERT_NORMAL, True),
        (pre_tokenizers.Whitespace(), BERT_NORMAL, False),
        (pre_tokenizers.Sequence([BERT_SPLIT, pre_tokenizers.Digits()]), BERT_NORMAL, False),
        (BERT_SPLIT, normalizers.BertNormalizer(clean_text=False), False),
        (BERT_SPLIT, None, False),
    ],
)
def test_only_bert_s_own_pipeline_is_saved_under_its_class(
    split: Any, normalizer: Any, own: bool, tmp_path: Path
) -> None:
    """That class replaces every other pipeline."""
    folder = write_bare(tmp_path / "a", wordpiece(split, normalizer), {}, "none")
    ours = load_tokenizer(folder)
    ours.save(tmp_path / "b")
    assert load_tokenizer(tmp_path / "b").fingerprint == ours.fingerprint
    theirs = T.AutoTokenizer.from_pretrained(tmp_path / "b")
    assert (type(theirs).__name__ == "BertTokenizer") == own
    text = "a1 a-1 É é a\x001"
    assert ours.build_row(ours.encode(text))[0] == theirs(text)["input_ids"]
