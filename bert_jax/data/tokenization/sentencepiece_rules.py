"""The normalization rules of the Unigram models that are trained here.

SentencePiece's own rules, nmt_nfkc, make a space of six characters that are none, and so cut a word
in two: Persian می‌خواهم, whose non-joiner stands within the word, becomes two words. Here they are

    U+200C zero-width non-joiner              kept, as nmt_nfkc keeps the joiner U+200D
    U+FFFD replacement character              kept: something is unknown there
    U+200E U+200F U+061C marks of direction   dropped: no letters
    U+FEFF byte-order mark                    dropped

All other rules are those of nmt_nfkc: control characters are dropped; the zero-width space U+200B,
which ends a word in Khmer and Thai, and SentencePiece's mark U+2581 are spaces.
"""

from __future__ import annotations

import functools
from typing import Any

import sentencepiece

NON_JOINER = "\u200c"
_RULES: dict[str, str | None] = {NON_JOINER: None, "\ufffd": None}  # None: no rule, so it is kept
_RULES |= dict.fromkeys("\u200e\u200f\u061c\ufeff", "")


@functools.cache
def training_rules() -> Any:
    """The compiled rules, a `normalizer` for SentencePieceTrainer.train; .5 s the first time."""
    sentencepiece.set_min_log_level(2)
    rules = sentencepiece.SentencePieceNormalizer(rule_name="nmt_nfkc").Decompile()
    mended = [(text, _RULES.get(text, result)) for text, result in rules]
    kept = [(text, result) for text, result in mended if result is not None]
    return sentencepiece.SentencePieceNormalizer(norm_map=kept)


def model_rules(model: bytes) -> Any:
    """What a model does to a text, apart from its marks of spaces: an object with `normalize`."""
    return sentencepiece.SentencePieceNormalizer(
        model_proto=model,
        add_dummy_prefix=False,
        escape_whitespaces=False,
        remove_extra_whitespaces=False,
    )
