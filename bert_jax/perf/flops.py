"""Floating-point operations of training, counted from a config alone.

What one token costs on its way forward, by what it is spent on (hidden size H, MLP width I,
embedding width E, heads A, vocabulary V, length S; an affine map from m to n is 2 m n):

    a layer     8 H^2 + 4 H S + 4 H I                       attention's four maps, its scores and
                                                            weighted sum, the MLP's two maps
    projection  2 E H                                       where E is not H
    MLM head    share (2 H E + 2 E V)                       `share` of the tokens is predicted
    SBO head    share (2 (2 H + P) H + 2 H E + 2 E V)       SpanBERT's, from two tokens and a place
                                                            whose embedding has width P
    RTD head    2 H^2 + 2 H                                 at every token, whatever the loss counts
    look-up     2 E V                                       only if done as a product with one-hot
    the rest    softmax 5, dropout 4, layer norm 5, GELU 8 per number; biases, residuals, scale 1

Layers are counted as often as they are applied: ALBERT's shared ones each time. A gated MLP has
6 H I; in a layer with a window of w a token sees min(S, 2 w + 1) keys, not S.

Two sums are made of it.

`published` is that of ELECTRA's efficiency claims (Clark et al. 2020, table 1;
electra/flops_computation.py): everything above, the look-up as a product, backward as much as
forward, 15.625 % of the tokens predicted, no sentence pairs. The script knows no SBO head; here it
is counted as the MLM head is. With `lookup="sparse"` the look-up costs nothing.

`model` is what utilisation is measured by: matrix products alone, none for the look-up, the
places that this config predicts, all of its heads, and backward twice forward, since each
product has two in its gradient.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from bert_jax.config import Encoder, Experiment, Masked, Masking, ReplacedTokens, Supervised

Lookup = Literal["dense", "sparse"]

SOFTMAX, DROPOUT, NORM, GELU = 5, 4, 5, 8  # per number (electra/flops_computation.py)
PUBLISHED_SHARE = 0.15625  # of tokens that are predicted: 20 of 128


@dataclass(frozen=True)
class Flops:
    """Of one token on its way forward, averaged over a row."""

    products: float = 0.0
    rest: float = 0.0
    lookup: float = 0.0  # of the word table, were it a product

    def __add__(self, other: Flops) -> Flops:
        return Flops(
            self.products + other.products, self.rest + other.rest, self.lookup + other.lookup
        )

    def __mul__(self, times: float) -> Flops:
        return Flops(self.products * times, self.rest * times, self.lookup * times)


def layer(encoder: Encoder, keys: float) -> Flops:
    """One application of a layer, where each query sees so many keys."""
    h, i = encoder.hidden_size, encoder.mlp_width
    attention = 8 * h * h + 4 * h * keys
    scores = (SOFTMAX + DROPOUT + 1) * keys * encoder.heads
    # the script counts attention's layer norm once, not once per number; kept as it is
    rest = 3 * h + scores + h + DROPOUT * h + h + NORM
    rest += (GELU + 1) * i + h + DROPOUT * h + h + NORM * h
    return Flops(attention + (6 if encoder.gated_mlp else 4) * h * i, rest)


def embeddings(encoder: Encoder, length: int) -> Flops:
    """Word, position and type tables, layer norm, dropout, and the projection."""
    h, e = encoder.hidden_size, encoder.embedding_width
    # positions and types as products with one-hot, even where the words are looked up
    rest = 2 * e * (length + 2) + (2 + NORM + DROPOUT) * e
    projected = e != h
    products = 2 * e * h if projected else 0
    return Flops(products, rest + (h if projected else 0), 2 * e * encoder.vocab_size)


def mlm(encoder: Encoder, share: float) -> Flops:
    """Dense, GELU, layer norm, the tied table and its softmax at a share of the tokens."""
    h, e, v = encoder.hidden_size, encoder.embedding_width, encoder.vocab_size
    return Flops(2 * h * e + 2 * e * v, e + (GELU + NORM) * e + (SOFTMAX + 2) * v) * share


def sbo(encoder: Encoder, objective: Masked, share: float) -> Flops:
    """The span boundary head at a share of the tokens: two dense layers, the table once more."""
    h = encoder.hidden_size
    first = Flops(2 * (2 * h + objective.sbo_size) * h, (1 + GELU + NORM) * h)
    return first * share + mlm(encoder, share)


def rtd(encoder: Encoder) -> Flops:
    """Dense, GELU and one logit at every token."""
    h = encoder.hidden_size
    return Flops(2 * h * h + 2 * h, (1 + GELU) * h)


def discriminating(encoder: Encoder, objective: ReplacedTokens, share: float) -> Flops:
    """The heads of a discriminator, by what it learns; `share` of the tokens is masked."""
    if objective.target == "replace_mlm":
        return mlm(encoder, share)
    if objective.target == "all_tokens_mlm":
        return mlm(encoder, 1.0) + rtd(encoder)
    return rtd(encoder)


def predictions(masking: Masking, length: int) -> int:
    """Places that a full row of `length` tokens has for predictions."""
    n = masking.max_rate * length
    most = {"round": max(1, round(n)), "ceil": math.ceil(n), "floor": int(n) + 1}[masking.budget]
    return most if masking.max_predictions is None else min(most, masking.max_predictions)


def encoding(encoder: Encoder, length: int) -> Flops:
    """Embeddings and all layers."""
    narrow = length if encoder.window is None else min(length, 2 * encoder.window + 1)
    wide = encoder.layers if narrow == length else -(-encoder.layers // encoder.global_every)
    whole = embeddings(encoder, length) + layer(encoder, length) * wide
    return whole + layer(encoder, narrow) * (encoder.layers - wide)


def published(config: Experiment, length: int, lookup: Lookup = "dense") -> float:
    """FLOPs of training per token as ELECTRA's script counts them: its masked language model,
    or, for `ReplacedTokens`, both towers. Times tokens: those of a run."""
    encoder, objective = config.encoder, config.objective
    if isinstance(objective, ReplacedTokens):
        generator = objective.generator(encoder)
        whole = encoding(encoder, length) + discriminating(encoder, objective, PUBLISHED_SHARE)
        whole += encoding(generator, length) + mlm(generator, PUBLISHED_SHARE)
    else:
        whole = encoding(encoder, length) + mlm(encoder, PUBLISHED_SHARE)
        if isinstance(objective, Masked) and objective.sbo_weight:
            whole += sbo(encoder, objective, PUBLISHED_SHARE)
    return 2 * (whole.products + whole.rest + (whole.lookup if lookup == "dense" else 0.0))


def model(config: Experiment, length: int) -> float:
    """FLOPs of training per place of a row, padding included: three times the forward matrix
    products of this config's networks and heads. Of a row of one sequence: packed rows have a few
    more places for predictions (corruption.packed_predictions)."""
    encoder, objective = config.encoder, config.objective
    whole = encoding(encoder, length)
    if isinstance(objective, ReplacedTokens):
        generator = objective.generator(encoder)
        share = predictions(objective.masking, length) / length
        whole += discriminating(encoder, objective, share)
        whole += encoding(generator, length) + mlm(generator, share)
    elif isinstance(objective, Masked):
        share = predictions(objective.masking, length) / length
        whole += mlm(encoder, share)
        if objective.sbo_weight:
            whole += sbo(encoder, objective, share)
        if objective.sentence_pair:
            whole += _pooler(encoder, 2) * (1 / length)
    elif isinstance(objective, Supervised):
        whole += _task(encoder, objective, length)
    return 3 * whole.products


def step(config: Experiment, batch_size: int, length: int) -> float:
    """FLOPs of one train step, by `model`; accumulation does not change it."""
    return batch_size * length * model(config, length)


def _pooler(encoder: Encoder, outputs: int) -> Flops:
    h = encoder.hidden_size
    return Flops(2 * h * h + 2 * h * outputs)


def _task(encoder: Encoder, objective: Supervised, length: int) -> Flops:
    """A head of fine-tuning; of joint spans the layers on every token."""
    h, n = encoder.hidden_size, objective.num_outputs
    if objective.task_type == "tagging":
        return Flops(2 * h * n)
    if objective.task_type == "qa":
        width = h if objective.family == "albert" else 512
        return Flops(4 * h if objective.span == "linear" else 2 * h + 2 * h * width + 2 * width)
    dense = 0 if objective.head == "first" else 2 * h * h
    return Flops(dense + 2 * h * n) * (1 / length)
