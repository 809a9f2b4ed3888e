"""What a reader of an evaluation should know: what was not scored, and why. Each function gives one
note, or none."""

from __future__ import annotations

from collections.abc import Sequence

from bert_jax.data.corpus import Corpus
from bert_jax.data.documents import Document
from bert_jax.data.sentence_pairs import PAIR_KINDS
from bert_jax.inference.evaluation.bits_per_character import BitsPerCharacter
from bert_jax.inference.evaluation.pair_scores import (
    OrderScores,
    PairScores,
    untrimmed_neighbors,
)
from bert_jax.inference.evaluation.replaced_tokens import ReplacedScores, detects_replaced_tokens
from bert_jax.inference.evaluation.token_rows import TokenRows
from bert_jax.inference.model import Model
from bert_jax.objectives import ReplacedTokensObjective

NOTED_SHARE = 0.001  # of unknown tokens, or of dropped characters


def unknown_note(share: float) -> tuple[str, ...]:
    """A note if a noted `share` of the tokens is unknown."""
    if share < NOTED_SHARE:
        return ()
    return (f"{share:.1%} of the tokens are unknown pieces, which are neither masked nor counted",)


def pair_note(
    model: Model, corpus: Corpus, rows: TokenRows, pairs: PairScores | None
) -> tuple[str, ...]:
    """Why sentence pairs are not scored, if they are not."""
    if corpus.info.segments not in PAIR_KINDS or pairs is not None:
        return ()
    network, _ = model.objective.encoder(model.params)
    if "pair" not in network.heads:
        return ("the model has no head for the corpus's sentence pairs",)
    zero, one = ((rows.pair == label).sum() for label in (0, 1))
    return (f"no sentence pairs are scored: {zero} have label 0, and {one} have label 1",)


def order_note(
    segments: str, rows: TokenRows, pairs: PairScores | None, order: OrderScores | None
) -> tuple[str, ...]:
    """Why the order of neighbors is not scored, if it is not."""
    if segments != "sop" or pairs is None or order is not None:
        return ()
    return (
        f"the order of neighbors is not scored: {len(untrimmed_neighbors(rows))} rows have "
        "untrimmed neighbors, and none are left when their lengths are balanced; give more text",
    )


def replaced_note(model: Model, replaced: ReplacedScores | None) -> tuple[str, ...]:
    """Why the discriminator is not scored, if there is one and it is not."""
    if replaced is not None or not isinstance(model.objective, ReplacedTokensObjective):
        return ()
    if not detects_replaced_tokens(model.objective):
        target = model.objective.config.target
        return (f"the discriminator is not scored: it was trained for the target {target}",)
    return ("the discriminator is not scored: the generator replaced no token, or all of them",)


def replaced_bytes_note(documents: Sequence[Document]) -> tuple[str, ...]:
    """How many bytes of the text are not UTF-8, if some are not."""
    count = sum(document.replaced_bytes for document in documents)
    if not count:
        return ()
    return (f"{count:,} bytes of the text are not UTF-8 and were replaced by U+FFFD",)


def dropped_note(bits: BitsPerCharacter) -> tuple[str, ...]:
    """How many characters normalization drops or changes, if it does."""
    dropped, total = bits.dropped_characters, bits.text_characters
    if not dropped:
        return ()
    advice = (
        "; only compare with models that drop the same" if dropped >= NOTED_SHARE * total else ""
    )
    return (
        f"normalization drops or changes {dropped:,} of the text's {total:,} characters "
        f"({dropped / total:.1%}), which are not scored{advice}",
    )
