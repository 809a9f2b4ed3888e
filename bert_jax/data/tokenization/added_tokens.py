"""Add whole words to a tokenizer; every existing id stays the same.

wordpiece   a piece, matched wherever a word begins with it, as every piece is
unigram     a piece `▁word` with the highest score of all: any other way to split the word
            takes at least two pieces, which together have a lower score
bpe         an added token that includes the space before it; merges would need a piece for
            each step on the way to the word
chars, and  a word of a script without spaces (Chinese, Japanese, Thai, ...) is an added token,
any kind    found wherever it stands, as with `add_tokens` of `transformers`
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Sequence
from typing import Any

import tokenizers

from bert_jax.data.tokenization.backends import (
    Backend,
    SentencePieceBackend,
    TokenizersBackend,
    model_proto,
)
from bert_jax.data.tokenization.words import SPACE_MARK, has_unspaced

logger = logging.getLogger(__name__)

NORMAL = 1  # the type of a SentencePiece piece that is neither special nor unused


def append_words(
    kind: str, backend: Backend, words: Sequence[str], specials: Sequence[str] = ()
) -> Backend:
    """A new backend with these words at the end of its vocabulary; those of scripts without spaces
    are the last ones.

    ValueError: a word is not one word to this tokenizer, or is there already.
    """
    unspaced = [w for w in words if has_unspaced(w) or kind == "chars"]
    known_unspaced = set(unspaced)
    spaced = [w for w in words if w not in known_unspaced]
    forms = [_form(kind, backend, w) for w in spaced] + unspaced
    words = spaced + unspaced
    counts = Counter(forms)
    duplicates = {*backend.pieces, *(f for f, n in counts.items() if n > 1)}
    _refuse([w for w, f in zip(words, forms, strict=True) if f in duplicates], "duplicates")
    first, extended = len(backend.pieces), backend
    if spaced:
        extended = _append_spaced(kind, backend, forms[: len(spaced)])
    if unspaced:
        extended = _append_unspaced(kind, extended, unspaced, specials)
    split = [w for i, w in enumerate(words) if extended.encode(w) != [first + i]]
    _refuse(split, "more than one word: remove spaces, and characters at which it splits")
    return extended


def _append_spaced(kind: str, backend: Backend, forms: Sequence[str]) -> Backend:
    if isinstance(backend, SentencePieceBackend):
        return _sentencepiece(backend, forms)
    if kind.endswith("bpe"):
        return _added_tokens(backend, forms)
    return _pieces(kind, backend, forms)


def _append_unspaced(
    kind: str, backend: Backend, words: Sequence[str], specials: Sequence[str]
) -> TokenizersBackend:
    """Added tokens, which SentencePiece has not: its model becomes a pipeline with the same ids."""
    if isinstance(backend, SentencePieceBackend) and backend.splits_commas:
        logger.warning(
            "words of scripts without spaces are added tokens, which SentencePiece has not: the "
            "pipeline that has them does not split a digit from the comma after it, as ALBERT's "
            "code does"
        )
    core = tokenizers.Tokenizer.from_str(backend.core.to_str())
    normalized = not kind.endswith("bpe")
    core.add_tokens([tokenizers.AddedToken(w, normalized=normalized) for w in words])
    core.add_special_tokens([s for s in specials if core.token_to_id(s) is not None])
    return TokenizersBackend(core, specials)


def replaced_pieces(old: Any, new: Any, words: Sequence[str]) -> list[list[int]]:
    """For each piece that the tokenizer `new` has more than `old`, the ids that `old` encodes it
    by, without unknown ones. A word after a space is encoded with it."""
    pieces: list[list[int]] = [[] for _ in range(new.vocab_size - old.vocab_size)]
    for word in words:
        space = "" if has_unspaced(word) else " "
        for i in new.encode(word):
            if i >= old.vocab_size:
                ids = old.encode(space + word)
                pieces[i - old.vocab_size] = [j for j in ids if j != old.unk_id]
    return pieces


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
