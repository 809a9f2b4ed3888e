"""Heads: modules `(out, batch) -> output`, where `out` holds `hidden` [b l d] and the outputs of
earlier heads. Heads over the vocabulary return an `LMHeadOutput`: the loss projects its features
onto the tied word table, so that whole logits need not exist.

Parameters:

    mlm      dense/{kernel (d, e), bias (e)}  norm/{scale, bias} (e)  bias (v)
    pooler   dense (d, d)
    pair     dense (d, 2)
    sbo      position (r, s)  first/{kernel (2d+s, d), bias}  first_norm  second (d, e)
             second_norm  bias (v)
    rtd      dense (d, d)  out/{kernel (d, 1), bias (1)}
    label tag span                                                 see task_heads.py

Axes: b batch, l length, d hidden, e embedding width, v vocabulary, p predictions,
r relative positions, s their width.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype
from jaxtyping import Array, Float, Int

from bert_jax.config import Encoder
from bert_jax.distributed.constraints import BATCH_AXES, constrain
from bert_jax.model.layers import (
    ACTIVATIONS,
    dense,
    dropout,
    dropout_key,
    initializer,
    layer_norm,
    positionwise,
    projection_initializer,
)
from bert_jax.utils.types import Batch


class LMHeadOutput(NamedTuple):
    """The last features before the vocabulary, and the bias of the logits; if they have none, the
    size of the vocabulary, int32."""

    features: Float[Array, "*s e"]
    bias: Float[Array, " v"] | Int[Array, ""]

    def logits(self, table: Float[Array, "v e"]) -> Float[Array, "*s v"]:
        """`features @ table.T + bias` in float32, sharded as the tied word table is."""
        table = constrain(table, "tensor", None).astype(self.features.dtype)
        logits: Any = _scores(self.features, table)
        bias = self.bias
        if not bias.ndim:  # rows that pad the vocabulary still need one
            bias = jnp.where(jnp.arange(len(table)) < bias, 0.0, -1e30)
        return constrain(logits + bias, BATCH_AXES, *[None] * (logits.ndim - 2), "tensor")


@jax.custom_vjp
def _scores(features: Float[Array, "*s e"], table: Float[Array, "v e"]) -> Any:
    """`features @ table.T` in float32, whose gradient is rounded to the type of the features: JAX's
    own rule multiplies in float32, at half the speed on GPUs and with twice the memory traffic."""
    return jnp.einsum("...e,ve->...v", features, table, preferred_element_type=jnp.float32)


def _scores_bwd(residuals: tuple[Any, Any], d: jax.Array) -> tuple[jax.Array, jax.Array]:
    features, table = residuals
    d = d.astype(features.dtype)
    return jnp.einsum("...v,ve->...e", d, table), jnp.einsum("...v,...e->ve", d, features)


_scores.defvjp(lambda *args: (_scores(*args), args), _scores_bwd)


def gather_positions(
    hidden: Float[Array, "b l d"], positions: Int[Array, "b p"]
) -> Float[Array, "b p d"]:
    """The hidden states at `positions`."""
    return jnp.take_along_axis(hidden, positions[..., None], axis=1)


def _vocab_bias(module: nn.Module, config: Encoder) -> Float[Array, " v"] | Int[Array, ""]:
    """The bias of the logits; in rows that pad the vocabulary it removes them from the softmax. See
    `LMHeadOutput` where the config has none."""
    size = config.vocab_size
    if not config.vocab_bias:
        return jnp.int32(size)
    bias = positionwise(module, "bias", nn.initializers.zeros, (size,))
    return bias if len(bias) == size else jnp.where(jnp.arange(len(bias)) < size, bias, -1e30)


class MlmHead(nn.Module):
    """Dense, activation and layer norm at the masked positions (bert/run_pretraining.py
    get_masked_lm_output), to the embedding width, as in ALBERT and ELECTRA."""

    config: Encoder
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, out: dict[str, Any], batch: Batch) -> LMHeadOutput:
        c = self.config
        h = gather_positions(out["hidden"], batch["masked"])
        h = dense(c, c.embedding_width, self.dtype, "dense", part="head")(h)
        h = layer_norm(c, self.dtype, "norm")(ACTIVATIONS[c.head_activation or c.activation](h))
        return LMHeadOutput(h, _vocab_bias(self, c))


class Pooler(nn.Module):
    """tanh of a dense layer on the first token [b d], in packed rows on that of each sequence
    [b n d]."""

    config: Encoder
    rate: float = 0.0  # dropout before the dense layer, in RoBERTa's classifier
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, out: dict[str, Any], batch: Batch) -> Float[Array, "b *n d"]:
        h = out["hidden"]
        h = gather_positions(h, batch["starts"]) if "starts" in batch else h[:, 0]
        h = dropout(h, self.rate, dropout_key(self))
        width = self.config.hidden_size
        return jnp.tanh(dense(self.config, width, self.dtype, "dense", part="head")(h))


class PairHead(nn.Module):
    """Two logits from the pooled vector: next sentence, or sentence order. No dropout."""

    config: Encoder
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, out: dict[str, Any], batch: Batch) -> Float[Array, "b *n 2"]:
        return dense(self.config, 2, jnp.float32, "dense", logits=True)(out["pooler"])


class SboHead(nn.Module):
    """Predict a token of a masked span from the two tokens around the span and the token's offset
    in it (SpanBERT, pretraining/fairseq/models/pair_bert.py BertPairTargetPredictionHead).

        tokens     the [ [MASK] [MASK] [MASK] ] sat     `left` the, `right` sat, `offset` 0 1 2
    """

    config: Encoder
    num_offsets: int = 15  # spans are predicted up to this many tokens
    offset_size: int = 200  # width of an offset's embedding
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, out: dict[str, Any], batch: Batch) -> LMHeadOutput:
        c = self.config
        act = ACTIVATIONS[c.head_activation or c.activation]
        position = self.param("position", initializer(c), (self.num_offsets, self.offset_size))
        offset = jnp.minimum(batch["offset"], self.num_offsets - 1)
        embedded = constrain(position, None, None)[offset].astype(self.dtype)
        sides = (gather_positions(out["hidden"], batch[side]) for side in ("left", "right"))
        h = jnp.concatenate([*sides, embedded], axis=-1)
        h = act(dense(c, c.hidden_size, self.dtype, "first", part="head")(h))
        h = layer_norm(c, self.dtype, "first_norm")(h)
        h = act(dense(c, c.embedding_width, self.dtype, "second", part="head")(h))
        h = layer_norm(c, self.dtype, "second_norm")(h)
        return LMHeadOutput(h, _vocab_bias(self, c))


class RtdHead(nn.Module):
    """One logit per token, positive if it was replaced (electra/run_pretraining.py
    _get_discriminator_output); no layer norm, no dropout."""

    config: Encoder
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, out: dict[str, Any], batch: Batch) -> Float[Array, "b l"]:
        c = self.config
        h = dense(c, c.hidden_size, self.dtype, "dense", part="head")(out["hidden"])
        h = ACTIVATIONS[c.head_activation or c.activation](h)
        return dense(c, 1, jnp.float32, "out", projection_initializer(c), logits=True)(h)[..., 0]


HEADS = {"mlm": MlmHead, "pooler": Pooler, "pair": PairHead, "rtd": RtdHead}  # in this order
