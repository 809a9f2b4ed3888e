"""One stack for five families: embeddings, `layers` layers made of `groups` sets of
parameters, and heads.

Parameters of a network (BERT-base; a leading `groups` axis on everything under layers):

    embeddings   word (v, e)  position (p, e)  type (t, e)  norm/{scale, bias} (e)
    encoder      projection/{kernel (e, d), bias (d)}                      where e is not d
                 layers/attention/{query, key, value, out}/{kernel (d, d), bias (d)}, norm
                 layers/mlp/{up (d, f), down (f, d)}/{kernel, bias}, norm
                 layers/own/...  instead of the part that a group does not share, with a
                                 second leading axis: the layers of the group
    mlm pooler pair sbo rtd                                                   see heads.py

Axes: b batch, l length, d hidden, e embedding width, h heads, k head width, f feed-forward,
v vocabulary, g groups. Dropout is on exactly when a `dropout` key is given.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import field
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype
from jaxtyping import Array, Bool, Float, Int

from bert_jax.config import Encoder
from bert_jax.layout import ROWS, constrain
from bert_jax.model.attention import attention
from bert_jax.model.layers import (
    ACTIVATIONS,
    by_token,
    dense,
    dropout,
    dropout_key,
    initializer,
    layer_norm,
    projection_initializer,
)

Batch = dict[str, Any]
Head = Callable[..., nn.Module]  # (config, dtype=, name=) -> a module of heads.py


class Inputs(NamedTuple):
    """What an encoder reads."""

    tokens: Int[Array, "b l"]
    types: Int[Array, "b l"]
    positions: Int[Array, "b l"]  # from 0 in every row, whatever the table's offset
    mask: Bool[Array, "b #l l"]  # which keys each query sees


def inputs(batch: Batch) -> Inputs:
    """The encoder's inputs of padded rows; `types`, `positions` and `mask`, where a batch
    brings its own, stand as they are.

        tokens    [CLS] a a [SEP] b [SEP] . .     size 6, first 4
        types       0   0 0   0   1   1   0 0
        mask        1   1 1   1   1   1   0 0
    """
    tokens = batch["tokens"]
    at = jnp.broadcast_to(jnp.arange(tokens.shape[-1], dtype=jnp.int32), tokens.shape)
    types, positions, mask = (batch.get(k) for k in ("types", "positions", "mask"))
    if types is None:
        second = (at >= batch["first"][:, None]) & (at < batch["size"][:, None])
        types = jnp.where(second, 1, 0)
    if mask is None:
        mask = at[:, None, :] < batch["size"][:, None, None]
    return Inputs(tokens, types, at if positions is None else positions, mask)


class Embeddings(nn.Module):
    """Words, positions and token types, summed; layer norm first, dropout second
    (bert/modeling.py embedding_postprocessor)."""

    config: Encoder
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Inputs) -> Float[Array, "b l e"]:
        c, init = self.config, initializer(self.config)
        word_init = _with_zero_row(init, c.pad_id) if c.zero_pad_row else init
        word = by_token(self, "word", word_init, (c.vocab_size, c.embedding_width))
        word = constrain(word, "tensor", None)
        position = self.param("position", init, (c.position_rows, c.embedding_width))
        h = word[x.tokens] + constrain(position, None, None)[x.positions + c.position_offset]
        if c.token_types:
            types = jnp.minimum(x.types, c.token_types - 1)  # an imported RoBERTa has one type
            table = self.param("type", init, (c.token_types, c.embedding_width))
            h = h + constrain(table, None, None)[types]
        h = layer_norm(c, self.dtype, "norm")(h)
        return constrain(dropout(h, c.dropout, dropout_key(self)), ROWS, None, None)


class Attention(nn.Module):
    """Self-attention with its residual and layer norm (post-norm)."""

    config: Encoder
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "b l d"], mask: Bool[Array, "b #l l"]
    ) -> Float[Array, "b l d"]:
        c = self.config

        def heads(name: str) -> Float[Array, "b h l k"]:
            y = dense(c, c.hidden_size, self.dtype, name)(x)
            y = y.reshape(*y.shape[:-1], c.heads, c.head_size).swapaxes(1, 2)
            return constrain(y, ROWS, "tensor", None, None)

        h = attention(
            heads("query"),
            heads("key"),
            heads("value"),
            mask,
            c.attention_dropout,
            dropout_key(self),
        )
        h = h.swapaxes(1, 2).reshape(x.shape)
        h = dropout(dense(c, c.hidden_size, self.dtype, "out")(h), c.dropout, dropout_key(self))
        return constrain(layer_norm(c, self.dtype, "norm")(x + h), ROWS, None, None)


class Mlp(nn.Module):
    """The feed-forward part with its residual and layer norm; no dropout inside."""

    config: Encoder
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b l d"], _: Any = None) -> Float[Array, "b l d"]:
        c = self.config
        h = ACTIVATIONS[c.activation](dense(c, c.mlp_width, self.dtype, "up")(x))
        h = dropout(dense(c, c.hidden_size, self.dtype, "down")(h), c.dropout, dropout_key(self))
        return constrain(layer_norm(c, self.dtype, "norm")(x + h), ROWS, None, None)


PARTS: dict[str, type[Attention] | type[Mlp]] = {"attention": Attention, "mlp": Mlp}


class Block(nn.Module):
    """One set of parameters, applied as often as its group has layers: once in BERT, for all
    layers in ALBERT. Each application draws its own dropout."""

    config: Encoder
    dtype: Dtype = jnp.float32
    keep: bool = False  # hand out every layer's output, for features from any layer

    @nn.compact
    def __call__(
        self, x: Float[Array, "b l d"], mask: Bool[Array, "b #l l"]
    ) -> tuple[Float[Array, "b l d"], Any]:
        c = self.config
        layers = c.layers // c.num_groups

        def layer(block: Block, x: Any, own: Any) -> tuple[Any, Any]:
            for name, part in PARTS.items():
                if c.share in ("all", name):
                    x = part(c, self.dtype, name=name)(x, mask)
                else:
                    key = dropout_key(block)
                    x = part(c, self.dtype, parent=None).apply(
                        {"params": own}, x, mask, rngs={} if key is None else {"dropout": key}
                    )
            return x, x if self.keep else None

        scan = nn.scan(
            layer,
            variable_broadcast="params",
            split_rngs={"params": False, "dropout": True},
            length=layers,
        )
        return scan(self, x, self._own(x, mask, layers))

    def _own(self, x: jax.Array, mask: jax.Array, layers: int) -> Any:
        """Parameters per layer of the part that the group does not share (ALBERT's ablation)."""
        if self.config.share == "all":
            return None
        part = PARTS["mlp" if self.config.share == "attention" else "attention"]
        module = part(self.config, self.dtype, parent=None)

        def init(key: jax.Array) -> Any:
            return jax.vmap(lambda k: module.init(k, x, mask)["params"])(
                jax.random.split(key, layers)
            )

        return self.param("own", init)


class Stack(nn.Module):
    """The projection from the embedding width, then all layers."""

    config: Encoder
    dtype: Dtype = jnp.float32
    keep: bool = False

    @nn.compact
    def __call__(
        self, x: Float[Array, "b l e"], mask: Bool[Array, "b #l l"]
    ) -> tuple[Float[Array, "b l d"], Any]:
        c = self.config
        if c.embedding_width != c.hidden_size:
            init = projection_initializer(c)
            x = dense(c, c.hidden_size, self.dtype, "projection", init)(x)
        scan = nn.scan(
            Block,
            variable_axes={"params": 0},
            split_rngs={"params": True, "dropout": True},
            in_axes=nn.broadcast,  # type: ignore[arg-type]
            length=c.num_groups,
        )
        first = x
        x, kept = scan(c, self.dtype, self.keep, name="layers")(x, mask)
        if self.keep:
            kept = jnp.concatenate([first[None], kept.reshape(c.layers, *x.shape)])
        return x, kept


class Network(nn.Module):
    """Embeddings, encoder, and heads, each of which may read what those before it made."""

    config: Encoder
    heads: Mapping[str, Head] = field(default_factory=dict)
    dtype: Dtype = jnp.float32
    keep: bool = False

    @nn.compact
    def __call__(self, batch: Batch) -> dict[str, Any]:
        """`hidden` [b l d], `layers` [n+1 b l d] if kept, and what each head makes of them.

        Layer 0 is what enters the first layer, layer i the output of layer i.
        """
        x = inputs(batch)
        h = Embeddings(self.config, self.dtype, name="embeddings")(x)
        h, kept = Stack(self.config, self.dtype, self.keep, name="encoder")(h, x.mask)
        out = {"hidden": h, "layers": kept}
        for name, head in self.heads.items():
            out[name] = head(self.config, dtype=self.dtype, name=name)(out, batch)
        return out


def _with_zero_row(init: jax.nn.initializers.Initializer, row: int) -> Any:
    return lambda *args: init(*args).at[row].set(0.0)
