"""The kinds of tokenizers, their special tokens, and how these are added to one segment or two."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

Kind = Literal["wordpiece", "unigram", "bpe", "chars", "sentencepiece_bpe"]
KINDS: tuple[Kind, ...] = ("wordpiece", "unigram", "bpe", "chars")  # that can be trained

# pad, unk, cls, sep, mask: as published with BERT, ALBERT, RoBERTa and Gemma
SPECIAL_TOKENS: dict[str, tuple[str, str, str, str, str]] = {
    "wordpiece": ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"),
    "unigram": ("<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"),
    "bpe": ("<pad>", "<unk>", "<s>", "</s>", "<mask>"),
    "chars": ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"),
    "sentencepiece_bpe": ("<pad>", "<unk>", "<bos>", "<eos>", "<mask>"),
}
ROLES = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")


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


class Template(NamedTuple):
    """The special tokens of a `tokenizer.json` by name, as `SpecialTokens` has them by id, and
    whether the second text has the token type 1."""

    cls: str
    sep: str
    doubled: bool
    types: bool


def read_template(post_processor: dict[str, Any] | None) -> Template | None:
    """The template of a post-processor in `tokenizer.json`. None: it adds no special tokens.

    ValueError: special tokens in other places than `SpecialTokens` has.
    """
    if post_processor is None or post_processor["type"] == "ByteLevel":  # offsets only
        return None
    kind = post_processor["type"]
    if kind == "Sequence":
        templates = [t for p in post_processor["processors"] if (t := read_template(p))]
        if len(templates) > 1:
            raise ValueError("its post-processor has several templates: expected one")
        return templates[0] if templates else None
    if kind in ("BertProcessing", "RobertaProcessing"):
        cls, sep = post_processor["cls"][0], post_processor["sep"][0]
        doubled = kind == "RobertaProcessing"
        return Template(cls, sep, doubled, types=not doubled)
    if kind != "TemplateProcessing":
        raise ValueError(f"its post-processor is {kind}: expected a template of special tokens")
    single, pair = (_places(post_processor[name]) for name in ("single", "pair"))
    if len(single) == 3 and single[1] == "A":
        cls, _, sep = single
        for doubled in (False, True):
            seps = [sep, sep] if doubled else [sep]
            if pair == [cls, "A", *seps, "B", sep] and {cls, sep}.isdisjoint("AB"):
                return Template(cls, sep, doubled, bool(_type_of_second(post_processor["pair"])))
    raise ValueError(
        f"its template is {' '.join(single)} for one text and {' '.join(pair)} for two: expected "
        "[CLS] A [SEP], and [CLS] A [SEP] B [SEP] or [CLS] A [SEP] [SEP] B [SEP]"
    )


def special_token_strings(
    kind: str, config: dict[str, Any], template: Template | None = None
) -> list[str]:
    """The five special tokens: those of the template, else from the folder's config, else as
    published."""
    values = [
        config.get(role) or default
        for role, default in zip(ROLES, SPECIAL_TOKENS[kind], strict=True)
    ]
    tokens = [t["content"] if isinstance(t, dict) else t for t in values]
    return tokens if template is None else [*tokens[:2], template.cls, template.sep, tokens[4]]


def _type_of_second(pair: list[dict[str, Any]]) -> int:
    """The token type of the second text of a template of two."""
    return next(p["Sequence"]["type_id"] for p in pair if p.get("Sequence", {}).get("id") == "B")


def _places(template: list[dict[str, Any]]) -> list[str]:
    """The special tokens of a template, and A and B for its segments."""
    return [next(iter(place.values()))["id"] for place in template]
