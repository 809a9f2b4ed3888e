"""The kinds of tokenizers, their special tokens, and how these are added to one segment or two."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

Kind = Literal["wordpiece", "unigram", "bpe"]
KINDS: tuple[Kind, ...] = ("wordpiece", "unigram", "bpe")

# pad, unk, cls, sep, mask: as published with BERT, ALBERT and RoBERTa
SPECIAL_TOKENS: dict[str, tuple[str, str, str, str, str]] = {
    "wordpiece": ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"),
    "unigram": ("<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"),
    "bpe": ("<pad>", "<unk>", "<s>", "</s>", "<mask>"),
}
ROLES = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")


def special_token_strings(kind: str, config: dict[str, Any]) -> list[str]:
    """The five special tokens: from a tokenizer's config, else as published."""
    tokens = [
        config.get(role) or default
        for role, default in zip(ROLES, SPECIAL_TOKENS[kind], strict=True)
    ]
    return [t["content"] if isinstance(t, dict) else t for t in tokens]


class SpecialTokens(NamedTuple):
    """The ids of the special tokens around segments.

    [CLS] a a a [SEP] b b [SEP]           first 5: token types 0 before it, 1 from it on
    <s> a a a </s> </s> b b </s>          `doubled`, of RoBERTa, which has no token types
    """

    cls: int
    sep: int
    doubled: bool = False

    def build_row(self, a: list[int], b: list[int] | None = None) -> tuple[list[int], int]:
        """The ids with special tokens added, and how many of them belong to segment 0."""
        first = [self.cls, *a, self.sep]
        if b is None:
            return first, len(first)
        return [*first, *([self.sep] if self.doubled else []), *b, self.sep], len(first)

    def text_capacity(self, length: int, segments: int) -> int:
        """How many tokens of text fit in a row of `length` tokens with one or two segments."""
        return length - len(self.build_row([], None if segments == 1 else [])[0])
