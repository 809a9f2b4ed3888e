"""The backends that encode text: a `tokenizers` pipeline, or a `sentencepiece` Unigram model.

Both have the same interface: `pieces` (the vocabulary in the order of ids), `weights` (scores or
merges, which choose between segmentations), `encode`, `encode_batch`, `decode`, and `core`, the
`tokenizers` pipeline that a saved folder contains for other libraries.
"""

from __future__ import annotations

import functools
import json
import sys
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import sentencepiece
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

from bert_jax.data.tokenization.words import SPACE_MARK

_MAX_CACHED_WORDS = 1 << 16
# Characters of a WordPiece word: BERT's first release and every Hugging Face tokenizer. BERT's code
# since November 2018 and ELECTRA's have 200.
MAX_INPUT_CHARS = 100


class TokenizersBackend:
    """A pipeline of the `tokenizers` library: WordPiece, byte-level BPE, or a foreign Unigram."""

    def __init__(self, core: tokenizers.Tokenizer):
        core.no_padding()  # published files may set padding and truncation
        core.no_truncation()
        core.encode_special_tokens = True  # "[MASK]" in a text is text
        self.core = core
        vocab = core.get_vocab(with_added_tokens=True)
        self.pieces = sorted(vocab, key=vocab.__getitem__)
        if [vocab[p] for p in self.pieces] != list(range(len(vocab))):
            raise ValueError(f"its {len(vocab)} ids are not 0 to {len(vocab) - 1}")

    @functools.cached_property
    def added(self) -> dict[str, list[bool]]:
        """Added tokens except special ones, which are matched before the text is split, and their
        flags."""
        flags = ("single_word", "lstrip", "rstrip", "normalized")
        tokens = [t for t in self.spec["added_tokens"] if not t["special"]]
        return {t["content"]: [t[f] for f in flags] for t in tokens}

    @functools.cached_property
    def spec(self) -> dict[str, Any]:
        return json.loads(self.core.to_str())

    @property
    def word_limit(self) -> dict[str, int]:
        """The characters of the longest word that WordPiece encodes, if not the usual number."""
        model, name = self.spec["model"], "max_input_chars_per_word"
        return {name: model[name]} if model.get(name, MAX_INPUT_CHARS) != MAX_INPUT_CHARS else {}

    @property
    def lowercases(self) -> bool:
        normalizer = self.spec["normalizer"] or {}
        steps = normalizer.get("normalizers", [normalizer])
        return any(s.get("lowercase") or s.get("type") == "Lowercase" for s in steps)

    @functools.cached_property
    def weights(self) -> bytes:
        model = self.spec["model"]
        if model["type"] == "Unigram":
            return np.array([score for _, score in model["vocab"]], np.float32).tobytes()
        merges = model.get("merges", [])
        return "\n".join(m if isinstance(m, str) else " ".join(m) for m in merges).encode()

    def encode(self, text: str) -> list[int]:
        return self.core.encode(text, add_special_tokens=False).ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        # the fast path skips character offsets, which are not needed here
        return [e.ids for e in self.core.encode_batch_fast(list(texts), add_special_tokens=False)]

    def decode(self, ids: Iterable[int]) -> str:
        return self.core.decode(list(ids), skip_special_tokens=True)


class SentencePieceBackend:
    """ALBERT's tokenizer: its text normalization, then a Unigram model, then its rule that a digit
    and the comma after it are two pieces (albert, tokenization.py)."""

    added: Mapping[str, list[bool]] = MappingProxyType({})
    word_limit: Mapping[str, int] = MappingProxyType({})

    def __init__(self, model: bytes, cased: bool):
        self.model, self.cased = model, cased
        self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        self.pieces = [self._processor.id_to_piece(i) for i in range(len(self._processor))]
        scores = [self._processor.get_score(i) for i in range(len(self.pieces))]
        self.weights = np.array(scores, np.float32).tobytes()
        self._word_ids: dict[str, list[int]] = {}
        self._commas = {
            i for i, p in enumerate(self.pieces) if len(p) > 1 and p[-1] == "," and p[-2].isdigit()
        }

    def encode(self, text: str) -> list[int]:
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Encode word by word: no piece crosses a space, most words repeat, and sums of scores are
        too short for rounding errors that would break ties."""
        split = [clean_text(t, self.cased).split(" ") for t in texts]
        if len(self._word_ids) > _MAX_CACHED_WORDS:
            self._word_ids.clear()
        new = list({word for words in split for word in words if word not in self._word_ids})
        for word, ids in zip(new, self._processor.encode(new), strict=True):
            self._word_ids[word] = self._split_commas(ids)
        return [[i for word in words for i in self._word_ids[word]] for words in split]

    def decode(self, ids: Iterable[int]) -> str:
        return self._processor.decode([int(i) for i in ids])

    def _split_commas(self, ids: list[int]) -> list[int]:
        if self._commas.isdisjoint(ids):
            return ids
        out: list[int] = []
        for i in ids:
            out += self._without_comma(self.pieces[i]) if i in self._commas else [i]
        return out

    def _without_comma(self, piece: str) -> list[int]:
        """`▁1990,` -> the ids of `▁1990` and `,`."""
        parts = self._processor.encode(piece[:-1].replace(SPACE_MARK, ""), out_type=str)
        if not piece.startswith(SPACE_MARK) and parts[0].startswith(SPACE_MARK):
            parts = [parts[0][1:], *parts[1:]] if len(parts[0]) > 1 else parts[1:]
        return [self._processor.piece_to_id(p) for p in (*parts, ",")]

    @functools.cached_property
    def core(self) -> tokenizers.Tokenizer:
        """A `tokenizers` pipeline with the same ids, except for the rule about commas, which a
        pipeline cannot express. Models trained here have no piece that the rule splits."""
        proto = model_proto(self.model)
        vocab = [(p.piece, float(p.score)) for p in proto.pieces]
        core = tokenizers.Tokenizer(
            models.Unigram(vocab, unk_id=proto.trainer_spec.unk_id, byte_fallback=False)
        )
        charsmap = proto.normalizer_spec.precompiled_charsmap
        steps = albert_normalizers(self.cased)
        steps += [normalizers.Precompiled(charsmap)] if charsmap else []
        core.normalizer = normalizers.Sequence(steps)
        core.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.WhitespaceSplit(),
                pre_tokenizers.Metaspace(replacement=SPACE_MARK, prepend_scheme="always"),
            ]
        )
        core.decoder = decoders.Metaspace(replacement=SPACE_MARK, prepend_scheme="always")
        return core


def model_proto(model: bytes) -> Any:
    """Parse a SentencePiece model as a protocol buffer."""
    from sentencepiece import sentencepiece_model_pb2

    proto: Any = sentencepiece_model_pb2.ModelProto()  # type: ignore[attr-defined]
    proto.ParseFromString(model)
    return proto


# ---- ALBERT's text normalization, in Python and as steps of a `tokenizers` pipeline


def clean_text(text: str, cased: bool) -> str:
    """Normalize a text: single spaces, compatibility decomposition (NFKD), no combining marks,
    lower case unless cased (albert, tokenization.preprocess_text)."""
    text = " ".join(text.split())
    if not text.isascii():
        text = unicodedata.normalize("NFKD", text)
        text = "".join(c for c in text if not unicodedata.combining(c))
    # lower() would give a final capital sigma a letter of its own, unlike every pipeline
    return text if cased else text.replace("\u03a3", "\u03c3").lower()


def albert_normalizers(cased: bool) -> list[Any]:
    """`clean_text` as steps of a `tokenizers` pipeline."""
    steps: list[Any] = [
        # Python takes these for white space, Rust for control characters
        normalizers.Replace(tokenizers.Regex("[\\x1c-\\x1f]"), " "),
        normalizers.NFKD(),
        normalizers.Replace(tokenizers.Regex(_combining_class()), ""),
    ]
    # SentencePiece's own normalization composes Hangul again, that of `tokenizers` does not
    return [*steps, *([] if cased else [normalizers.Lowercase()]), normalizers.NFKC()]


@functools.cache
def _combining_class() -> str:
    """A regex class of the characters that `unicodedata.combining` calls combining. StripAccents
    of `tokenizers` would also drop vowel signs and joiners, which ALBERT keeps."""
    points = [c for c in range(0x300, sys.maxunicode + 1) if unicodedata.combining(chr(c))]
    ranges: list[list[int]] = []
    for point in points:
        if ranges and point == ranges[-1][1] + 1:
            ranges[-1][1] = point
        else:
            ranges.append([point, point])
    return "[" + "".join(f"\\x{{{a:x}}}-\\x{{{b:x}}}" for a, b in ranges) + "]"


# ---- pipelines from bare vocabularies


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
