"""Add whole words to a tokenizer; every existing id stays the same.

wordpiece   a piece, matched wherever a word begins with it, as every piece is
unigram     a piece `▁word` with the highest score of all: any other way to split the word
            takes at least two pieces, which together have a lower score
bpe         an added token that includes the space before it; merges would need a piece for
            each step on the way to the word
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

import tokenizers

from bert_jax.data.tokenization.backends import (
    SentencePieceBackend,
    TokenizersBackend,
    model_proto,
)
from bert_jax.data.tokenization.words import SPACE_MARK

Backend = TokenizersBackend | SentencePieceBackend
NORMAL = 1  # the type of a SentencePiece piece that is neither special nor unused


def append_words(kind: str, backend: Backend, words: Sequence[str]) -> Backend:
    """A new backend with these words at the end of its vocabulary.

    ValueError: a word is not one word to this tokenizer, or is there already.
    """
    forms = [_form(kind, backend, w) for w in words]
    counts = Counter(forms)
    duplicates = {*backend.pieces, *(f for f, n in counts.items() if n > 1)}
    _refuse([w for w, f in zip(words, forms, strict=True) if f in duplicates], "duplicates")
    if isinstance(backend, SentencePieceBackend):
        extended: Backend = _sentencepiece(backend, forms)
    elif kind.endswith("bpe"):
        extended = _added_tokens(backend, forms)
    else:
        extended = _pieces(kind, backend, forms)
    first = len(backend.pieces)
    split = [w for i, w in enumerate(words) if extended.encode(w) != [first + i]]
    _refuse(split, "more than one word: remove spaces, and characters at which it splits")
    return extended


def _form(kind: str, backend: Backend, word: str) -> str:
    """The word as the vocabulary holds it, normalized as a text would be."""
    if isinstance(backend, SentencePieceBackend):
        return SPACE_MARK + backend.normalize(word)
    if kind.endswith("bpe"):
        return word
    plain = backend.core.normalizer.normalize_str(word) if backend.core.normalizer else word
    return plain if kind == "wordpiece" else SPACE_MARK + plain


def _refuse(words: Sequence[str], reason: str) -> None:
    if words:
        shown = ", ".join(map(repr, words[:5])) + (", ..." if len(words) > 5 else "")
        raise ValueError(f"{len(words)} new words are {reason}, to this tokenizer ({shown})")


def is_known(backend: Backend, word: str, unk_id: int) -> bool:
    """Whether the word is a single piece already, alone or after a space."""
    return any(
        len(ids) == 1 and ids != [unk_id] for ids in backend.encode_batch([word, f" {word}"])
    )


def _pieces(kind: str, backend: TokenizersBackend, forms: Sequence[str]) -> TokenizersBackend:
    spec = json.loads(backend.core.to_str())
    vocabulary: Any = spec["model"]["vocab"]
    if kind == "wordpiece":
        vocabulary |= {f: len(backend.pieces) + i for i, f in enumerate(forms)}
    elif len(vocabulary) == len(backend.pieces):
        score = _highest_score([score for _, score in vocabulary])
        vocabulary += [[f, score] for f in forms]
    else:
        raise ValueError(
            "this Unigram tokenizer has added tokens after its pieces, so no piece can be "
            "appended: its vocabulary cannot grow"
        )
    return TokenizersBackend(tokenizers.Tokenizer.from_str(json.dumps(spec)))


def _added_tokens(backend: TokenizersBackend, words: Sequence[str]) -> TokenizersBackend:
    core = tokenizers.Tokenizer.from_str(backend.core.to_str())
    core.add_tokens(
        [tokenizers.AddedToken(w, single_word=True, lstrip=True, normalized=False) for w in words]
    )
    return TokenizersBackend(core)


def _sentencepiece(backend: SentencePieceBackend, forms: Sequence[str]) -> SentencePieceBackend:
    proto = model_proto(backend.model)
    score = _highest_score([p.score for p in proto.pieces if p.type == NORMAL])
    for form in forms:
        proto.pieces.add(piece=form, score=score, type=NORMAL)
    proto.trainer_spec.vocab_size = len(proto.pieces)
    return SentencePieceBackend(proto.SerializeToString(), backend.cased, backend.keep_accents)


def _highest_score(scores: Sequence[float]) -> float:
    """The highest score of a piece; scores are log probabilities, so below 0."""
    return max(s for s in scores if s < 0)
