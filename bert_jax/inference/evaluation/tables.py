"""An evaluation as text: every figure beside what scores the same without the ability."""

from __future__ import annotations

import math

from bert_jax.inference.evaluation.bits_per_character import BitsPerCharacter
from bert_jax.inference.evaluation.masked_places import MaskedScores
from bert_jax.inference.evaluation.pair_scores import OrderScores, PairScores
from bert_jax.inference.evaluation.replaced_tokens import ReplacedScores
from bert_jax.inference.evaluation.result import Evaluation
from bert_jax.utils.tables import format_table

LEVEL_ERRORS = 1.96  # of a difference: chance exceeds so many standard errors one time in 20


def render_evaluation(evaluation: Evaluation) -> str:
    """The tables that `bert-jax evaluate` prints."""
    e = evaluation
    of = f"{e.rows:,}" if e.rows == e.total_rows else f"{e.rows:,} of {e.total_rows:,}"
    parts = [
        f"{e.data}: {of} row{'s' * (e.total_rows > 1)} of {e.length} tokens, each masked "
        f"{e.maskings} time{'s' * (e.maskings > 1)}\n"
        f"counts are made from {e.counts}",
        _masked(e.masked),
    ]
    if e.pairs is not None:
        parts.append(_pairs(e.pairs, e.pair_kind))
    if e.order is not None:
        parts.append(_order(e.order))
    if e.replaced is not None:
        parts.append(_replaced(e.replaced))
    if e.bits is not None:
        parts.append(_bits(e.bits))
    if e.notes:
        parts.append("\n".join(f"note: {note}" for note in e.notes))
    return "\n\n".join(parts)


def _masked(masked: MaskedScores) -> str:
    rows = [
        (name, f"{s.loss.mean():.3f}", _percent(s.in_top(1).mean()), _percent(s.in_top(5).mean()))
        for name, s in (
            ("the model", masked.model),
            ("counts of both neighbors", masked.bigram),
            ("frequencies of tokens", masked.unigram),
        )
    ]
    title = f"{len(masked.row):,} masked tokens"
    table = format_table((title, "loss (nat)", "accuracy", "in the top 5"), rows)
    return f"{table}\n{_comparison(masked)}"


def _comparison(masked: MaskedScores) -> str:
    difference, error = masked.difference()
    if not math.isfinite(error):
        return f"model - counts: {difference:+.3f} nat; one row does not say which is better"
    level = abs(difference) <= LEVEL_ERRORS * error
    verdict = "level with" if level else "better than" if difference < 0 else "worse than"
    accuracy, top5 = (
        "{:+.1f} ± {:.1f} points".format(*(100 * x for x in masked.accuracy_difference(k)))
        for k in (1, 5)
    )
    return (
        f"model - counts: {difference:+.3f} ± {error:.3f} nat: the model is {verdict} counts of "
        f"the two neighboring tokens\n"
        f"model - counts, accuracy: {accuracy}, in the top 5: {top5}"
    )


def _pairs(pairs: PairScores, kind: str) -> str:
    rows = [
        ("the model", f"{pairs.loss:.3f}", f"{pairs.accuracy:.3f} ± {pairs.standard_error:.3f}"),
        ("label shares of the training rows", f"{pairs.share_loss:.3f}", "0.500"),
    ]
    header = (f"{pairs.pairs:,} sentence pairs ({kind})", "loss (nat)", "balanced accuracy")
    return format_table(header, rows)


def _order(order: OrderScores) -> str:
    rows = [
        ("the model", f"{order.accuracy:.3f} ± {order.standard_error:.3f}"),
        ("counts of tokens in first and second segments", f"{order.counts_accuracy:.3f}"),
        ("difference of the lengths (balanced)", "0.500"),
    ]
    header = (f"{order.neighbors:,} untrimmed neighbors in both orders", "accuracy")
    difference = f"model - counts: {order.accuracy - order.counts_accuracy:+.3f}"
    if math.isfinite(order.difference_error):
        difference += f" ± {order.difference_error:.3f}"
    return f"{format_table(header, rows)}\n{difference}"


def _replaced(r: ReplacedScores) -> str:
    precision = "none found" if r.precision is None else _percent(r.precision)
    share = _percent(r.replaced_share)
    rows = [
        ("the discriminator", f"{r.auc:.3f}", _percent(r.recall), precision),
        ("the discriminator, tokens of each row shuffled", f"{r.shuffled_auc:.3f}", "", ""),
        ("counts of both neighbors", f"{r.bigram_auc:.3f}", "", ""),
        ("chance", "0.500", "", share),
    ]
    header = (f"{r.tokens:,} tokens, {share} replaced", "AUC", "recall", "precision")
    return format_table(header, rows)


def _bits(b: BitsPerCharacter) -> str:
    of = f"{len(b.bits):,}" if len(b.bits) == b.total_words else f"{len(b.bits):,} of "
    of += "" if len(b.bits) == b.total_words else f"{b.total_words:,}"
    error = f" ± {b.standard_error:.3f}" if math.isfinite(b.standard_error) else ""
    rows = [("the model", f"{b.value:.3f}{error}")]
    for name, bits in (
        ("counts of both neighbors", b.bigram_bits),
        ("frequencies of tokens", b.unigram_bits),
    ):
        rows += [] if bits is None else [(name, f"{b.per_character(bits):.3f}")]
    rows.append((f"spelling with {b.alphabet:,} characters, equally likely", f"{b.spelling:.3f}"))
    table = format_table(
        (f"{of} words, each predicted from the text around it", "bits per character"), rows
    )
    folded = " and ".join(b.folded) if b.folded else "nothing"
    if b.difference is not None:
        difference, error = b.difference
        table += f"\nmodel - counts: {difference:+.3f}"
        table += f" ± {error:.3f}" if math.isfinite(error) else ""
    return (
        f"{table}\n{_percent(b.unknown_pieces / max(1, b.pieces))} of their pieces are unknown and "
        f"cost as much as spelling them; folded (removed from the text): {folded}"
    )


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
