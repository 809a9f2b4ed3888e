"""Pipelines of the `tokenizers` library from bare vocabularies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

from bert_jax.data.tokenization.words import SPACE_MARK

# Characters of a WordPiece word: BERT's first release and every Hugging Face tokenizer. BERT's code
# since November 2018 and ELECTRA's have 200.
MAX_INPUT_CHARS = 100


def wordpiece_pipeline(
    vocab: dict[str, int],
    lower: bool,
    strip_accents: bool | None = None,
    chinese: bool = True,
    unk: str = "[UNK]",
    max_input_chars_per_word: int = MAX_INPUT_CHARS,
) -> tokenizers.Tokenizer:
    """BERT's tokenizer (bert, tokenization.py). A longer word is the unknown token.
    `strip_accents` None: strip them if `lower`."""
    core = tokenizers.Tokenizer(
        models.WordPiece(vocab, unk_token=unk, max_input_chars_per_word=max_input_chars_per_word)
    )
    core.normalizer = normalizers.BertNormalizer(
        clean_text=True, handle_chinese_chars=chinese, strip_accents=strip_accents, lowercase=lower
    )
    core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    core.decoder = decoders.WordPiece(prefix="##")
    return core


def byte_bpe_pipeline(
    vocab: dict[str, int], merges: list[tuple[str, str]], prefix_space: bool = False
) -> tokenizers.Tokenizer:
    """GPT-2's byte-level BPE as RoBERTa uses it: no normalization, no added space."""
    core = tokenizers.Tokenizer(models.BPE(vocab, merges, fuse_unk=False))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix_space)
    core.decoder = decoders.ByteLevel()
    return core


def pair_template(cls: tuple[str, int], sep: tuple[str, int]) -> processors.TemplateProcessing:
    """The post-processor that adds [CLS] and [SEP] to one segment or two."""
    return processors.TemplateProcessing(
        single=f"{cls[0]}:0 $A:0 {sep[0]}:0",
        pair=f"{cls[0]}:0 $A:0 {sep[0]}:0 $B:1 {sep[0]}:1",
        special_tokens=[cls, sep],
    )


def bert_class(word_limit: Mapping[str, int]) -> dict[str, Any]:
    """The class that opens a WordPiece folder in `transformers`. Its BertTokenizer replaces the
    pipeline by one of 100 characters per word."""
    if not word_limit:
        return {"tokenizer_class": "BertTokenizer"}
    names = ["input_ids", "token_type_ids", "attention_mask"]
    return {"tokenizer_class": "PreTrainedTokenizerFast", "model_input_names": names, **word_limit}


def unigram_pipeline(
    vocab: list[tuple[str, float]], unk_id: int | None, steps: list[Any], charsmap: bytes | None
) -> tokenizers.Tokenizer:
    """A SentencePiece Unigram model of words: the normalizers `steps`, SentencePiece's own
    normalization, white space, a mark before every word."""
    core = tokenizers.Tokenizer(models.Unigram(vocab, unk_id=unk_id, byte_fallback=False))
    core.normalizer = normalizers.Sequence(
        [*steps, *([normalizers.Precompiled(charsmap)] if charsmap else [])]
    )
    marks: Any = dict(replacement=SPACE_MARK, prepend_scheme="always")
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(**marks)]
    )
    core.decoder = decoders.Metaspace(**marks)
    return core


def hf_albert_normalizers(cased: bool, keep_accents: bool) -> list[Any]:
    """What AlbertTokenizer of `transformers` 5 does to a text before SentencePiece's own
    normalization. It replaces quotation marks, and strips every nonspacing mark, also those without
    a combining class, such as Indic vowel signs, which ALBERT's own code keeps."""
    return [
        normalizers.Replace("``", '"'),
        normalizers.Replace("''", '"'),
        *([] if keep_accents else [normalizers.NFKD(), normalizers.StripAccents()]),
        *([] if cased else [normalizers.Lowercase()]),
    ]


def is_bert(spec: dict[str, Any]) -> bool:
    """Whether a WordPiece pipeline is one that BertTokenizer of `transformers` builds, too."""
    normalizer, split = spec["normalizer"] or {}, spec["pre_tokenizer"] or {}
    return (
        normalizer.get("type") == "BertNormalizer"
        and normalizer["clean_text"]
        and split.get("type") == "BertPreTokenizer"
        and spec["model"]["continuing_subword_prefix"] == "##"
    )


def is_roberta(spec: dict[str, Any]) -> bool:
    """Whether a BPE pipeline is one that RobertaTokenizer of `transformers` builds, too."""
    split, model = spec["pre_tokenizer"] or {}, spec["model"]
    return (
        not spec["normalizer"]
        and split.get("type") == "ByteLevel"
        and split.get("use_regex", True)
        and not any(model.get(k) for k in ("continuing_subword_prefix", "end_of_word_suffix"))
        and not model.get("ignore_merges")
    )


def describe_normalizer(normalizer: dict[str, Any] | None) -> list[list[Any]]:
    """The settings of each step that change a text, for a fingerprint."""
    # one level deep, unlike backends.inner_steps: fingerprints of saved tokenizers depend on it
    steps = (normalizer or {}).get("normalizers", [normalizer] if normalizer else [])
    names = ("type", "pattern", "content", "lowercase", "strip_accents", "precompiled_charsmap")
    return [[step[n] for n in names if n in step] for step in steps]
