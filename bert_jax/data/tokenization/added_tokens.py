"""New whole words for a tokenizer that is already there; every old id stays as it is.

wordpiece   a piece: it is found wherever its word begins, as every piece is
unigram     a piece `▁word`, as likely as the likeliest one: any other way to split the word
            takes two pieces, which together are less likely
bpe         an added token that takes the space before it along; merges cannot say a word
            without pieces for each step on the way to it
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

import tokenizers

from bert_jax.data.tokenization.backends import (
    SPACE_MARK,
    SentencePieceBackend,
    TokenizersBackend,
    clean_text,
    model_proto,
)

Backend = TokenizersBackend | SentencePieceBackend
NORMAL = 1  # a SentencePiece piece that is neither special nor unused


def append_words(kind: str, backend: Backend, words: Sequence[str]) -> Backend:
    """A backend with these words at the end of its vocabulary.

    ValueError: what this tokenizer does not take for one word each.
    """
    forms = [_form(kind, backend, w) for w in words]
    counts = Counter(forms)
    taken = {*backend.pieces, *(f for f, n in counts.items() if n > 1)}
    _refuse([w for w, f in zip(words, forms, strict=True) if f in taken], "twice the same")
    if isinstance(backend, SentencePieceBackend):
        grown: Backend = _sentencepiece(backend, forms)
    elif kind == "bpe":
        grown = _added_tokens(backend, forms)
    else:
        grown = _pieces(kind, backend, forms)
    first = len(backend.pieces)
    split = [w for i, w in enumerate(words) if grown.encode(w) != [first + i]]
    _refuse(split, "more than one word: leave out spaces, and marks at which it splits")
    return grown


def _form(kind: str, backend: Backend, word: str) -> str:
    """The word as the vocabulary holds it, cleaned as a text would be."""
    if isinstance(backend, SentencePieceBackend):
        return SPACE_MARK + clean_text(word, backend.cased)
    if kind == "bpe":
        return word
    plain = backend.core.normalizer.normalize_str(word) if backend.core.normalizer else word
    return plain if kind == "wordpiece" else SPACE_MARK + plain


def _refuse(words: Sequence[str], what: str) -> None:
    if words:
        shown = ", ".join(map(repr, words[:5])) + (", ..." if len(words) > 5 else "")
        raise ValueError(f"{len(words)} new words are, to this tokenizer, {what} ({shown})")


def is_known(backend: Backend, word: str, unk_id: int) -> bool:
    """Whether the word is one piece already, alone or after a space."""
    return any(
        len(ids) == 1 and ids != [unk_id] for ids in backend.encode_batch([word, f" {word}"])
    )


def _pieces(kind: str, backend: TokenizersBackend, forms: Sequence[str]) -> TokenizersBackend:
    spec = json.loads(backend.core.to_str())
    vocabulary: Any = spec["model"]["vocab"]
    if kind == "wordpiece":
        vocabulary |= {f: len(backend.pieces) + i for i, f in enumerate(forms)}
    elif len(vocabulary) == len(backend.pieces):
        score = _likeliest([score for _, score in vocabulary])
        vocabulary += [[f, score] for f in forms]
    else:
        raise ValueError(
            "this Unigram tokenizer has tokens behind its pieces, so that no piece can follow: "
            "a vocabulary of this kind cannot be made longer"
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
    score = _likeliest([p.score for p in proto.pieces if p.type == NORMAL])
    for form in forms:
        proto.pieces.add(piece=form, score=score, type=NORMAL)
    proto.trainer_spec.vocab_size = len(proto.pieces)
    return SentencePieceBackend(proto.SerializeToString(), backend.cased)


def _likeliest(scores: Sequence[float]) -> float:
    """The score of the likeliest piece: a logarithm of a probability, so below 0."""
    return max(s for s in scores if s < 0)
