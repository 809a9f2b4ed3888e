"""Train WordPiece by merging the most frequent pairs, as the `tokenizers` library does; BERT's own
trainer was never released.

The library numbers continuing letters, and cuts an alphabet among equally frequent letters, in the
order of a hash table, which differs between processes. Here the alphabet is chosen beforehand, each
letter becomes a private character, plain BPE is trained on these, and they are turned back:

    the  ->  t ##h ##e  ->  three private characters  ->  the, ##he
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import tokenizers
from tokenizers import models, pre_tokenizers, trainers

from bert_jax.data.tokenization.long_lines import split_long
from bert_jax.data.tokenization.special_tokens import SPECIAL_TOKENS

logger = logging.getLogger(__name__)

# An alphabet of fewer characters is not cut for the sake of `_COVERAGE`; twice the published limit.
_COMMON_CHARACTERS = 2000
_COVERAGE = 0.99995  # of the letters of a text, as in ALBERT's tokenizer
_FIRST_PRIVATE, _NUM_PRIVATE = 0xF0000, 0x1FFF0
_WORDS_PER_LINE = 1000


def train_wordpiece(
    texts: Iterable[str],
    base: tokenizers.Tokenizer,
    vocab_size: int,
    max_chars: int,
    alphabet: int | None = None,
) -> list[str]:
    """The pieces in the order of their ids, at most `vocab_size`. `base` splits a text into words;
    words above `max_chars` characters are cut for training.

    The alphabet has the most frequent characters, `alphabet` of them, or else as many as cover
    99.995 % of the text and take half of the vocabulary. If the text has too few longer pieces, the
    next characters fill the vocabulary. Words with a character that is left out are not learned.
    """
    specials = wordpiece_special_tokens(vocab_size)
    free = vocab_size - len(specials)
    words = Counter(_split_words(texts, base, max_chars))
    letters = Counter[str]()
    for word, count in words.items():
        for letter in _letters(word):
            letters[letter] += count
    characters = _by_frequency(letters)
    forms = {c: [f for f in (c, f"##{c}") if f in letters] for c in characters}
    if alphabet is not None:
        characters = characters[:alphabet]
        if (needed := sum(len(forms[c]) for c in characters)) > free:
            raise ValueError(
                f"alphabet is {alphabet}, which takes {needed} pieces of {free}: expected fewer "
                "characters or more pieces"
            )
    chosen = characters[: _alphabet_size(characters, forms, letters, max(free // 2, 2), alphabet)]
    pieces = _merge(words, forms, chosen, free)
    left = [f for c in characters[len(chosen) :] for f in forms[c]]
    if len(pieces) < free and len(pieces) + len(left) >= free:
        pieces += left[: free - len(pieces)]
    elif len(pieces) < free:
        pieces = _merge(words, forms, characters, free)
    _log_alphabet(letters, {*pieces})
    return specials + pieces


def wordpiece_special_tokens(vocab_size: int) -> list[str]:
    """BERT's published layout: [PAD] is 0, [UNK] [CLS] [SEP] [MASK] are 100 to 103, with unused
    pieces between. Vocabularies below 1,000 pieces have no unused ones: there they are 0 to 4."""
    pad, *others = SPECIAL_TOKENS["wordpiece"]
    return [pad, *([f"[unused{i}]" for i in range(1, 100)] if vocab_size >= 1000 else []), *others]


def largest_vocabulary(pieces: Sequence[str], vocab_size: int) -> int:
    """The largest size that this text allows, if a vocabulary of `vocab_size` ends at `pieces`. The
    layout of the special tokens depends on the size."""
    free = len(pieces) - len(wordpiece_special_tokens(vocab_size))
    large = free + len(wordpiece_special_tokens(1000))
    return large if large >= 1000 else min(999, free + len(wordpiece_special_tokens(999)))


def _split_words(texts: Iterable[str], base: tokenizers.Tokenizer, max_chars: int) -> Iterator[str]:
    assert base.normalizer is not None
    assert base.pre_tokenizer is not None
    for text in texts:
        for word, _ in base.pre_tokenizer.pre_tokenize_str(base.normalizer.normalize_str(text)):
            yield from split_long(word, max_chars) if len(word) > max_chars else (word,)


def _letters(word: str) -> list[str]:
    return [word[0], *(f"##{c}" for c in word[1:])]


# ---- the alphabet


def _by_frequency(letters: Counter[str]) -> list[str]:
    """The characters, the most frequent first, equally frequent ones in the order of Unicode."""
    counts = Counter[str]()
    for letter, count in letters.items():
        counts[letter[-1]] += count
    return sorted(counts, key=lambda c: (-counts[c], c))


def _alphabet_size(
    characters: Sequence[str],
    forms: dict[str, list[str]],
    letters: Counter[str],
    max_forms: int,
    alphabet: int | None,
) -> int:
    """How many of the characters are learned."""
    if alphabet is not None:
        return len(characters)
    total, covered, used = letters.total(), 0, 0
    for i, c in enumerate(characters):
        used += len(forms[c])
        rare = i >= _COMMON_CHARACTERS and covered >= _COVERAGE * total
        if rare or (used > min(max_forms, _NUM_PRIVATE)):
            return i
        covered += sum(letters[f] for f in forms[c])
    return len(characters)


def _log_alphabet(letters: Counter[str], pieces: set[str]) -> None:
    left_out = [f for f in letters if f not in pieces]
    if left_out:
        logger.warning(
            "%d of %d characters (at the beginning of a word or within) are not in the vocabulary: "
            "%.3f %% of those in the text; words with them become [UNK] (more pieces, or "
            "--alphabet, keep more)",
            len(left_out),
            len(letters),
            100 * sum(letters[f] for f in left_out) / letters.total(),
        )


# ---- merges


def _merge(
    words: Counter[str], forms: dict[str, list[str]], characters: Sequence[str], free: int
) -> list[str]:
    """The letters of the characters, and the pieces that BPE makes of them; at most `free`."""
    inside = sorted(f for c in characters for f in forms[c] if len(f) > 1)
    first = sorted(f for c in characters for f in forms[c] if len(f) == 1)
    letters = [*first, *inside][: max(free, 0)]
    private = {f: chr(_FIRST_PRIVATE + i) for i, f in enumerate(letters)}
    if not letters:
        return []
    core = tokenizers.Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.BpeTrainer(
        vocab_size=max(free, 1),
        special_tokens=[],
        initial_alphabet=list(private.values()),
        limit_alphabet=len(private),
        show_progress=False,
    )
    core.train_from_iterator(_training_lines(words, private), trainer)
    vocab = core.get_vocab()
    public = {p: f for f, p in private.items()}
    ordered = sorted(vocab, key=vocab.__getitem__)
    return [_join([public[c] for c in piece]) for piece in ordered]


def _training_lines(words: Counter[str], private: dict[str, str]) -> Iterator[str]:
    """Every word as often as it occurs, in private characters; words that have others are left
    out."""
    for word, count in words.items():
        coded = [private.get(letter, "") for letter in _letters(word)]
        if all(coded):
            line = "".join(coded) + " "
            for begin in range(0, count, _WORDS_PER_LINE):
                yield line * min(_WORDS_PER_LINE, count - begin)


def _join(letters: Sequence[str]) -> str:
    """`t ##h ##e` -> `the`; `##h ##e` -> `##he`."""
    return letters[0] + "".join(letter.removeprefix("##") for letter in letters[1:])
