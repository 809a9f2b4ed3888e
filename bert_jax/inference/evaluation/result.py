"""What `evaluate` returns, and its JSON object."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from bert_jax.inference.evaluation.bits_per_character import BitsPerCharacter
from bert_jax.inference.evaluation.masked_places import MaskedScores
from bert_jax.inference.evaluation.pair_scores import OrderScores, PairScores
from bert_jax.inference.evaluation.replaced_tokens import ReplacedScores


@dataclass(frozen=True)
class Evaluation:
    """The scores of a model; None where the data or the model has no such thing."""

    data: str  # the corpus or the text
    counts: str  # what the unigram and neighbor counts were made from
    rows: int  # that were scored
    total_rows: int
    maskings: int
    masked: MaskedScores
    pairs: PairScores | None = None
    pair_kind: str = ""  # nsp or sop
    order: OrderScores | None = None  # of rows of sop
    replaced: ReplacedScores | None = None
    bits: BitsPerCharacter | None = None
    length: int = 0  # tokens of a row at most, and of a word with its context
    unknown_tokens: float = 0.0  # the share of the text's tokens, which are not hidden
    notes: tuple[str, ...] = ()  # what a reader has to know about the figures, or why one is absent

    def to_json(self) -> dict[str, Any]:
        """The scores by their names; None for what was not measured."""
        masked = self.masked
        difference, error = masked.difference()
        out: dict[str, Any] = {
            "data": self.data,
            "counts": self.counts,
            "rows": self.rows,
            "total_rows": self.total_rows,
            "maskings": self.maskings,
            "length": self.length,
            "masked_tokens": len(masked.row),
            "unknown_tokens": self.unknown_tokens,
            "notes": list(self.notes),
        }
        for name, scores in (
            ("mask", masked.model),
            ("unigram", masked.unigram),
            ("bigram", masked.bigram),
        ):
            out[f"{name}_loss"] = float(scores.loss.mean())
            out[f"{name}_accuracy"] = float(scores.in_top(1).mean())
            out[f"{name}_top5"] = float(scores.in_top(5).mean())
        out |= {"mask_minus_bigram": difference, "mask_minus_bigram_se": _finite(error)}
        for name, k in (("accuracy", 1), ("top5", 5)):
            difference, error = masked.accuracy_difference(k)
            out[f"mask_{name}_minus_bigram"] = difference
            out[f"mask_{name}_minus_bigram_se"] = _finite(error)
        p, o, r, b = self.pairs, self.order, self.replaced, self.bits
        out |= {
            "pairs": p and p.pairs,
            "pair_accuracy": p and p.accuracy,
            "pair_accuracy_se": p and p.standard_error,
            "pair_loss": p and p.loss,
            "pair_share_loss": p and p.share_loss,
            "order_neighbors": o and o.neighbors,
            "order_accuracy": o and o.accuracy,
            "order_accuracy_se": o and o.standard_error,
            "order_counts_accuracy": o and o.counts_accuracy,
            "order_minus_counts_se": o and _finite(o.difference_error),
            "rtd_tokens": r and r.tokens,
            "rtd_replaced_share": r and r.replaced_share,
            "rtd_auc": r and r.auc,
            "bigram_auc": r and r.bigram_auc,
            "rtd_shuffled_auc": r and r.shuffled_auc,
            "rtd_recall": r and r.recall,
            "rtd_precision": r and r.precision,
            "bits_per_character": b and b.value,
            "bits_per_character_se": b and _finite(b.standard_error),
            "bigram_bits_per_character": b and _per_character(b, b.bigram_bits),
            "bits_per_character_minus_bigram": b and b.difference and b.difference[0],
            "bits_per_character_minus_bigram_se": b and b.difference and _finite(b.difference[1]),
            "unigram_bits_per_character": b and _per_character(b, b.unigram_bits),
            "spelling_bits_per_character": b and b.spelling,
            "words": b and len(b.bits),
            "total_words": b and b.total_words,
            "alphabet": b and b.alphabet,
            "unknown_pieces": b and b.unknown_pieces / max(1, b.pieces),
            "dropped_characters": b and b.dropped_characters,
            "text_characters": b and b.text_characters,
            "folded": None if b is None else list(b.folded),
        }
        return out


def _finite(x: float) -> float | None:
    return x if math.isfinite(x) else None


def _per_character(b: BitsPerCharacter, bits: np.ndarray | None) -> float | None:
    return None if bits is None else b.per_character(bits)
