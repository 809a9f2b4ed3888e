"""Floating-point operations of training, counted from a config alone.

FLOPs of one token in the forward pass (hidden size H, MLP width I, embedding width E, heads A,
vocabulary V, length S; an affine map from m to n is 2 m n):

    a layer     8 H^2 + 4 H S + 4 H I                       attention's four maps, its scores and
                                                            weighted sum, the MLP's two maps
    projection  2 E H                                       where E is not H
    MLM head    share (2 H E + 2 E V)                       `share` of the tokens is predicted
    SBO head    share (2 (2 H + P) H + 2 H E + 2 E V)       SpanBERT's, from two tokens and a
                                                            position embedding of width P
    RTD head    2 H^2 + 2 H                                 at every token, in any loss
    look-up     2 E V                                       only as a product with one-hot vectors
    the rest    softmax 5, dropout 4, layer norm 5, GELU 8 per number; biases, residuals, scale 1

Layers count as often as they are applied: ALBERT's shared layer each time. A gated MLP has 6 H I;
in a layer with a window of w a token sees min(S, 2 w + 1) keys, not S.

There are two sums:

`published_per_token` is that of ELECTRA's efficiency claims (Clark et al. 2020, table 1;
electra/flops_computation.py): everything above, the look-up as a product, the backward pass like
the forward pass, 15.625 % of the tokens predicted, no sentence pairs. The script has no SBO head;
here it counts like the MLM head. With `lookup="sparse"` the look-up costs nothing.

`model_per_token` is the numerator of the utilization: matrix products alone, none for the look-up,
the config's number of predictions and all of its heads, and twice the forward pass for the backward
pass, since the gradient of each product has two. Frozen parameters have no gradient, and a layer
below which nothing is trained passes none on (`saved_by_freezing`). This is what training needs. A
step may compute more: a loop over layers has the gradient of all layers, if only some are frozen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bert_jax.config import (
    Contrastive,
    Encoder,
    Experiment,
    Lora,
    Masked,
    ReplacedTokens,
    Supervised,
)
from bert_jax.config.freeze import Frozen, parse_freeze
from bert_jax.config.lora import MLP

Lookup = Literal["dense", "sparse"]

SOFTMAX, DROPOUT, NORM, GELU = 5, 4, 5, 8  # per number (electra/flops_computation.py)
PUBLISHED_SHARE = 0.15625  # fraction of tokens that are predicted: 20 of 128


@dataclass(frozen=True)
class Flops:
    """FLOPs of one token in the forward pass, averaged over a row."""

    products: float = 0.0
    rest: float = 0.0
    lookup: float = 0.0  # in the word table, as a product with one-hot vectors

    def __add__(self, other: Flops) -> Flops:
        return Flops(
            self.products + other.products, self.rest + other.rest, self.lookup + other.lookup
        )

    def __mul__(self, times: float) -> Flops:
        return Flops(self.products * times, self.rest * times, self.lookup * times)


def layer(encoder: Encoder, keys: float) -> Flops:
    """One application of a layer, in which each query sees `keys` keys."""
    h, i = encoder.hidden_size, encoder.mlp_width
    attention = 8 * h * h + 4 * h * keys
    scores = (SOFTMAX + DROPOUT + 1) * keys * encoder.heads
    # Like the script, count attention's layer norm once, not once per number.
    rest = 3 * h + scores + h + DROPOUT * h + h + NORM
    rest += (GELU + 1) * i + h + DROPOUT * h + h + NORM * h
    return Flops(attention + (6 if encoder.gated_mlp else 4) * h * i, rest)


def embeddings(encoder: Encoder, length: int) -> Flops:
    """Word, position and type tables, layer norm, dropout, and the projection."""
    h, e = encoder.hidden_size, encoder.embedding_width
    # positions and types as products with one-hot vectors, even if words are looked up
    rest = 2 * e * (length + 2) + (2 + NORM + DROPOUT) * e
    projection = h if e != h else 0
    return Flops(2 * e * projection, rest + projection, 2 * e * encoder.vocab_size)


def mlm_head(encoder: Encoder, share: float) -> Flops:
    """Dense, GELU, layer norm, tied table and softmax at a fraction of the tokens."""
    h, e, v = encoder.hidden_size, encoder.embedding_width, encoder.vocab_size
    return Flops(2 * h * e + 2 * e * v, e + (GELU + NORM) * e + (SOFTMAX + 2) * v) * share


def sbo_head(encoder: Encoder, objective: Masked, share: float) -> Flops:
    """The span boundary head at a fraction of the tokens: two dense layers and the table."""
    h = encoder.hidden_size
    first = Flops(2 * (2 * h + objective.sbo_size) * h, (1 + GELU + NORM) * h)
    return first * share + mlm_head(encoder, share)


def rtd_head(encoder: Encoder) -> Flops:
    """Dense, GELU and one logit at every token."""
    h = encoder.hidden_size
    return Flops(2 * h * h + 2 * h, (1 + GELU) * h)


def discriminator_heads(encoder: Encoder, objective: ReplacedTokens, share: float) -> Flops:
    """The heads of a discriminator for its target; `share`: fraction of masked tokens."""
    if objective.target == "replace_mlm":
        return mlm_head(encoder, share)
    if objective.target == "all_tokens_mlm":
        return mlm_head(encoder, 1.0) + rtd_head(encoder)
    return rtd_head(encoder)


def num_global_layers(encoder: Encoder) -> int:
    """The number of layers that attend to whole rows."""
    return encoder.layers if encoder.window is None else -(-encoder.layers // encoder.global_every)


def local_keys(encoder: Encoder, length: int) -> int:
    """The number of keys that a query sees in a local layer, in the middle of a row."""
    return length if encoder.window is None else min(length, 2 * encoder.window + 1)


def attention_split(encoder: Encoder, length: int) -> dict[str, float] | None:
    """Layers and keys of global and of local attention, and the global layers' share of the
    products between queries, keys and values; None if no layer is local."""
    keys, num_global = local_keys(encoder, length), num_global_layers(encoder)
    if keys == length or num_global == encoder.layers:
        return None
    whole, num_local = num_global * length, encoder.layers - num_global
    return {
        "global_layers": num_global,
        "local_layers": num_local,
        "local_keys": keys,
        "global_share": whole / (whole + num_local * keys),
    }


def describe_attention(split: dict[str, float]) -> str:
    """`attention_split` in words."""
    return (
        f"{split['global_layers']} layers see whole rows, {split['local_layers']} see "
        f"{split['local_keys']:,} tokens; {split['global_share']:.0%} of its products are in the "
        "former"
    )


def encoder_body(encoder: Encoder, length: int) -> Flops:
    """Embeddings and all layers."""
    total = embeddings(encoder, length)
    for keys in keys_of_layers(encoder, length):
        total += layer(encoder, keys)
    return total


def keys_of_layers(encoder: Encoder, length: int) -> list[int]:
    """The number of keys that a query sees in each layer."""
    keys, every = local_keys(encoder, length), encoder.global_every
    return [length if i % every == 0 else keys for i in range(encoder.layers)]


def published_per_token(config: Experiment, length: int, lookup: Lookup = "dense") -> float:
    """FLOPs of training per token as ELECTRA's script counts them: of a masked language model or,
    with `ReplacedTokens`, of generator and discriminator."""
    encoder, objective = config.encoder, config.objective
    if isinstance(objective, ReplacedTokens):
        generator = objective.generator(encoder)
        total = encoder_body(encoder, length)
        total += discriminator_heads(encoder, objective, PUBLISHED_SHARE)
        total += encoder_body(generator, length) + mlm_head(generator, PUBLISHED_SHARE)
    else:
        total = encoder_body(encoder, length) + mlm_head(encoder, PUBLISHED_SHARE)
        if isinstance(objective, Masked) and objective.sbo_weight:
            total += sbo_head(encoder, objective, PUBLISHED_SHARE)
    return 2 * (total.products + total.rest + (total.lookup if lookup == "dense" else 0.0))


def model_per_token(config: Experiment, length: int) -> float:
    """FLOPs of training per token, padding included: three times the matrix products in the
    forward pass of the config's networks and heads. For rows of one sequence; packed rows have a
    few more predictions (masking_budget.max_packed_predictions).

    Contrastive pre-training encodes two texts of each row; the products between the batch's vectors
    are not counted. A frozen base beside adapters lacks its kernels' gradients: two times their
    products, and three times those of attention's scores and weighted sum and of the adapters. A
    frozen word table has no gradient in the heads either. `optim.freeze`: `saved_by_freezing`.
    """
    encoder, objective = config.encoder, config.objective
    if isinstance(objective, Contrastive):
        width = objective.text_length(length)
        texts = 1 if objective.task == "pairs" else 2
        return _training(config, encoder, width) * texts * width / length
    products = _training(config, encoder, length)
    total, tables = Flops(), 0.0  # of heads; the products of tied word tables among them
    if isinstance(objective, ReplacedTokens):
        generator = objective.generator(encoder)
        products += _training(config, generator, length, numbered=False)
        share = objective.masking.num_slots(length) / length
        total += discriminator_heads(encoder, objective, share) + mlm_head(generator, share)
        of_discriminator = {"replace_mlm": share, "all_tokens_mlm": 1.0}.get(objective.target, 0.0)
        tables += _table(generator) * share + _table(encoder) * of_discriminator
    elif isinstance(objective, Masked):
        share = objective.masking.num_slots(length) / length
        total += mlm_head(encoder, share)
        tables += _table(encoder) * share
        if objective.sbo_weight:
            total += sbo_head(encoder, objective, share)
            tables += _table(encoder) * share
        if objective.sentence_pair:
            total += _pooler(encoder, 2) * (1 / length)
    elif isinstance(objective, Supervised):
        total += _task_head(encoder, objective, length)
    freeze = config.optim.freeze
    has_frozen_table = config.lora.enabled or (freeze and parse_freeze(freeze).embeddings)
    return products + 3 * total.products - (tables if has_frozen_table else 0.0)


def _table(encoder: Encoder) -> float:
    """The products of a token with the word table, in a head."""
    return 2.0 * encoder.embedding_width * encoder.vocab_size


def _training(config: Experiment, encoder: Encoder, length: int, numbered: bool = True) -> float:
    """The products of an encoder without heads for a token of a train step."""
    products = encoder_body(encoder, length).products
    if config.lora.enabled:  # nothing is trained below the first layer's adapters
        kernels = products - 4 * encoder.hidden_size * sum(keys_of_layers(encoder, length))
        unused = embeddings(encoder, length).products + 6 * encoder.hidden_size**2
        return 3 * (products + adapters(encoder, config.lora)) - kernels - unused
    if config.optim.freeze is None:
        return 3 * products
    frozen = parse_freeze(config.optim.freeze)
    if not numbered:
        frozen = frozen._replace(layers=frozenset())
    return 3 * products - saved_by_freezing(encoder, length, frozen)


def saved_by_freezing(encoder: Encoder, length: int, frozen: Frozen) -> float:
    """The products of the backward pass that a token does not need.

    trained below a layer   the layer is trained      it is frozen
    something               0                         its kernels' gradients
    nothing                 its input's gradient      its whole backward pass

    Heads count as trained above something, also above a frozen encoder: up to 2 H^2 too many.
    """
    saved = 2 * embeddings(encoder, length).products if frozen.embeddings else 0.0
    is_above_trained = not frozen.embeddings
    for i, keys in enumerate(keys_of_layers(encoder, length)):
        products = layer(encoder, keys).products
        if frozen.encoder or i in frozen.layers:
            # between queries, keys and values both factors are activations
            kernels = products - 4 * encoder.hidden_size * keys
            saved += kernels if is_above_trained else 2 * products
            continue
        norm_before = encoder.pre_norm and (encoder.first_norm or i > 0)  # it is trained, too
        if not is_above_trained and not norm_before:
            saved += 6 * encoder.hidden_size**2  # of queries, keys and values
        is_above_trained = True
    return saved


def adapters(encoder: Encoder, lora: Lora) -> float:
    """The products of all adapters for a token in the forward pass; 0 without adapters."""
    h, i = encoder.hidden_size, encoder.mlp_width
    kernels = [k for k in lora.kernels if k != "gate" or encoder.gated_mlp]
    sides = sum(h + i if kernel in MLP else 2 * h for kernel in kernels)
    return 2.0 * (lora.rank or 0) * encoder.layers * sides


def per_step(config: Experiment, batch_size: int, length: int) -> float:
    """FLOPs of one train step, by `model_per_token`; accumulation does not change them."""
    return batch_size * length * model_per_token(config, length)


def _pooler(encoder: Encoder, outputs: int) -> Flops:
    h = encoder.hidden_size
    return Flops(2 * h * h + 2 * h * outputs)


def _task_head(encoder: Encoder, objective: Supervised, length: int) -> Flops:
    """A head of fine-tuning; of the joint span head only the layers at every token."""
    h, n = encoder.hidden_size, objective.num_outputs
    per_token = 2 * h * h if objective.head == "prediction" else 0
    if objective.task_type == "tagging":
        return Flops(per_token + 2 * h * n)
    if objective.task_type == "qa":
        width = h if objective.family == "albert" else 512
        linear = per_token + 4 * h
        return Flops(linear if objective.span == "linear" else 2 * h + 2 * h * width + 2 * width)
    dense = 0 if objective.head == "first" else 2 * h * h
    return Flops(dense + 2 * h * n) * (1 / length)
