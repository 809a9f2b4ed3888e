"""The backends that encode text: a `tokenizers` pipeline, or a `sentencepiece` Unigram model.

Both have the same interface: `pieces` (the vocabulary in the order of ids), `weights` (scores or
merges, which choose between segmentations), `encode`, `encode_batch`, `decode`, and `core`, the
`tokenizers` pipeline that a saved folder contains for other libraries.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import sentencepiece
import tokenizers

from bert_jax.data.tokenization.albert_text import albert_normalizers, clean_text
from bert_jax.data.tokenization.pipelines import MAX_INPUT_CHARS, unigram_pipeline
from bert_jax.data.tokenization.sentencepiece_rules import NON_JOINER, model_rules
from bert_jax.data.tokenization.words import SPACE_MARK
from bert_jax.utils.text_lines import without_surrogates

_MAX_CACHED_WORDS = 1 << 16
_MAX_CACHED_CHARACTERS = 64  # of a word


class TokenizersBackend:
    """A pipeline of the `tokenizers` library: WordPiece, byte-level BPE, or a foreign Unigram.

    `specials` are tokens that a text never becomes, even if it spells them."""

    def __init__(self, core: tokenizers.Tokenizer, specials: Sequence[str] = ()):
        core.no_padding()  # published files may set padding and truncation
        core.no_truncation()
        core.encode_special_tokens = True  # "[MASK]" in a text is text
        self.core = core
        self._encoder = _without_specials(core, specials) if _finds(core, specials) else core
        vocab = core.get_vocab(with_added_tokens=True)
        self.pieces = sorted(vocab, key=vocab.__getitem__)
        if [vocab[p] for p in self.pieces] != list(range(len(vocab))):
            raise ValueError(
                f"its {len(vocab)} ids are not 0 to {len(vocab) - 1}; download or copy it again"
            )

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

    @functools.cached_property
    def marks_spaces(self) -> bool:
        """Whether a space before a word changes its pieces: byte-level BPE, SentencePiece's
        pipelines that do not put one before the text, and characters."""
        steps = [self.spec["normalizer"] or {}, self.spec["pre_tokenizer"] or {}]
        steps = [s for step in steps for s in inner_steps(step)]
        for step in steps:
            if step["type"] == "Prepend" or step.get("prepend_scheme", "never") != "never":
                return False
            if step["type"] == "ByteLevel" and step["add_prefix_space"]:
                return False
        writes_mark = any(s["type"] == "Replace" and s["content"] == SPACE_MARK for s in steps)
        return writes_mark or self.spec["model"]["type"] != "WordPiece"

    @property
    def marks_first(self) -> bool:
        """Whether a space is put before a text, but not before what follows an added token."""
        steps = inner_steps(self.spec["pre_tokenizer"] or {})
        return any(step.get("prepend_scheme") == "first" for step in steps)

    @property
    def lowercases(self) -> bool:
        steps = inner_steps(self.spec["normalizer"] or {})
        return any(s.get("lowercase") or s.get("type") == "Lowercase" for s in steps)

    @functools.cached_property
    def weights(self) -> bytes:
        model = self.spec["model"]
        if model["type"] == "Unigram":
            return np.array([score for _, score in model["vocab"]], np.float32).tobytes()
        merges = model.get("merges", [])
        return "\n".join(m if isinstance(m, str) else " ".join(m) for m in merges).encode()

    def encode(self, text: str) -> list[int]:
        return self._encoder.encode(without_surrogates(text), add_special_tokens=False).ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        # the fast path skips character offsets, which are not needed here
        texts = [without_surrogates(text) for text in texts]
        encodings = self._encoder.encode_batch_fast(texts, add_special_tokens=False)
        return [e.ids for e in encodings]

    def encode_with_offsets(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """As `encode`, and the begin and end of each piece."""
        encoding = self._encoder.encode(text, add_special_tokens=False)
        return encoding.ids, encoding.offsets

    def normalize(self, text: str) -> str:
        """The text that the pieces spell."""
        normalizer = self.core.normalizer
        return text if normalizer is None else normalizer.normalize_str(text)

    def decode(self, ids: Iterable[int]) -> str:
        return self.core.decode(list(ids), skip_special_tokens=True)


def _finds(core: tokenizers.Tokenizer, specials: Sequence[str]) -> bool:
    """Whether the model takes a special token that is spelled out for its piece: a Unigram model,
    or a WordPiece model that does not split at brackets, finds it as any other piece."""
    ids = {core.token_to_id(s) for s in specials}
    spelled = [text for s in specials for text in (s, f"a {s} b", f"a{s}b")]
    return any(
        not ids.isdisjoint(core.encode(text, add_special_tokens=False).ids) for text in spelled
    )


def _without_specials(core: tokenizers.Tokenizer, specials: Sequence[str]) -> tokenizers.Tokenizer:
    """The pipeline with names for the special tokens that no word can spell, with the same ids."""
    spec = json.loads(core.to_str())
    model, hidden = spec["model"], {s: f"{s} \n\ufdd0" for s in specials}
    if isinstance(model["vocab"], dict):
        model["vocab"] = {hidden.get(p, p): i for p, i in model["vocab"].items()}
        names = set(model["vocab"])
    else:
        model["vocab"] = [[hidden.get(p, p), score] for p, score in model["vocab"]]
        names = {p for p, _ in model["vocab"]}
    if model.get("unk_token") in hidden:
        model["unk_token"] = hidden[model["unk_token"]]
    renamed = {s for s in specials if hidden[s] in names}
    spec["added_tokens"] = [t for t in spec["added_tokens"] if t["content"] not in renamed]
    spec["post_processor"] = None  # it may name a special token
    encoder = tokenizers.Tokenizer.from_str(json.dumps(spec))
    encoder.encode_special_tokens = True
    return encoder


def inner_steps(step: dict[str, Any]) -> list[dict[str, Any]]:
    """The steps of a sequence of normalizers or pre-tokenizers; none if it is empty.
    Sequences may be nested."""
    inner = step.get("normalizers") or step.get("pretokenizers")
    return [i for s in inner for i in inner_steps(s)] if inner else [step] if step else []


class SentencePieceBackend:
    """ALBERT's tokenizer: its text normalization, then a Unigram model, then its rule that a digit
    and the comma after it are two pieces (albert, tokenization.py)."""

    added: Mapping[str, list[bool]] = MappingProxyType({})
    word_limit: Mapping[str, int] = MappingProxyType({})
    marks_spaces = False

    def __init__(self, model: bytes, cased: bool, keep_accents: bool = False):
        if not model:  # the library would only write to stderr
            raise ValueError("its SentencePiece model is empty; train or copy it again")
        self.model, self.cased, self.keep_accents = model, cased, keep_accents
        self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        self.pieces = [self._processor.id_to_piece(i) for i in range(len(self._processor))]
        scores = [self._processor.get_score(i) for i in range(len(self.pieces))]
        self.weights = np.array(scores, np.float32).tobytes()
        self._word_ids: dict[str, list[int]] = {}
        self._commas = {
            i for i, p in enumerate(self.pieces) if len(p) > 1 and p[-1] == "," and p[-2].isdigit()
        }

    def clean(self, text: str) -> str:
        """The text that SentencePiece is given."""
        return clean_text(text, self.cased, self.keep_accents)

    def normalize(self, text: str) -> str:
        """The text that the pieces spell."""
        return self._rules.normalize(self.clean(text))

    @functools.cached_property
    def _rules(self) -> Any:
        return model_rules(self.model)

    @property
    def splits_commas(self) -> bool:
        """Whether the vocabulary has pieces that the rule about commas splits."""
        return bool(self._commas)

    @property
    def keeps_joiners(self) -> bool:
        """Whether a non-joiner is a character, as in models trained here, or a space."""
        return NON_JOINER in self._rules.normalize(f"a{NON_JOINER}b")

    def encode(self, text: str) -> list[int]:
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Encode word by word: no piece crosses a space, most words repeat, and sums of scores are
        too short for rounding errors that would break ties."""
        split = [self.clean(without_surrogates(t)).split(" ") for t in texts]
        if len(self._word_ids) > _MAX_CACHED_WORDS:
            self._word_ids.clear()
        new = list({word for words in split for word in words if word not in self._word_ids})
        ids = dict(zip(new, map(self._split_commas, self._processor.encode(new)), strict=True))
        # "Words" of scripts without spaces are sentences, which do not repeat.
        self._word_ids |= {w: i for w, i in ids.items() if len(w) <= _MAX_CACHED_CHARACTERS}
        ids |= {w: self._word_ids[w] for words in split for w in words if w not in ids}
        return [[i for word in words for i in ids[word]] for words in split]

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
        steps = albert_normalizers(self.cased, self.keep_accents, self.keeps_joiners)
        charsmap = proto.normalizer_spec.precompiled_charsmap
        return unigram_pipeline(vocab, proto.trainer_spec.unk_id, steps, charsmap)


Backend = TokenizersBackend | SentencePieceBackend


def model_proto(model: bytes) -> Any:
    """Parse a SentencePiece model as a protocol buffer."""
    from sentencepiece import sentencepiece_model_pb2

    proto: Any = sentencepiece_model_pb2.ModelProto()  # type: ignore[attr-defined]
    proto.ParseFromString(model)
    return proto
