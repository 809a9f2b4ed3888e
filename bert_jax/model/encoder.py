"""One stack for five families: embeddings, `layers` layers made of `groups` sets of
parameters, and heads.

Parameters of a network (BERT-base; a leading `groups` axis on everything under layers):

    embeddings   word (v, e)  position (p, e)  type (t, e)  norm/{scale, bias} (e)
    encoder      projection/{kernel (e, d), bias (d)}                      where e is not d
                 layers/{attention, mlp}/...                           see block.py
                 layers/own/...  instead of the part that a group does not share, with a
                                 second leading axis: the layers of the group
                 norm/{scale, bias} (d)                                 with `pre_norm`
    mlm pooler pair sbo rtd                                                   see heads.py

Axes: b batch, l length, d hidden, e embedding width, f feed-forward, v vocabulary, g groups,
n layers of a group. Dropout is on exactly when a `dropout` key is given.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import field
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.typing import Dtype
from jaxtyping import Array, Bool, Float, Int

from bert_jax.config import Encoder
from bert_jax.distributed.constraints import BATCH_AXES, constrain
from bert_jax.model.attention import AttentionMask
from bert_jax.model.block import Block
from bert_jax.model.layers import (
    RotaryCosSin,
    dense,
    dropout,
    dropout_key,
    initializer,
    layer_norm,
    positionwise,
    projection_initializer,
    rotary_cos_sin,
)
from bert_jax.utils.types import Batch

Head = Callable[..., nn.Module]  # (config, dtype=, name=) -> a module of heads.py


class Inputs(NamedTuple):
    """What an encoder reads."""

    tokens: Int[Array, "b l"]
    types: Int[Array, "b l"]
    positions: Int[Array, "b l"]  # from 0 in every row, whatever the table's offset
    sight: AttentionMask  # which tokens each of them sees


def inputs(batch: Batch) -> Inputs:
    """The encoder's inputs of padded rows; `types` and `sight`, where a batch brings its own,
    stand as they are. Packed rows (packing.py) bring everything.

        tokens    [CLS] a a [SEP] b [SEP] . .     size 6, first 4
        types       0   0 0   0   1   1   0 0
        segments    1   1 1   1   1   1   0 0
    """
    tokens = batch["tokens"]
    at = jnp.broadcast_to(jnp.arange(tokens.shape[-1], dtype=jnp.int32), tokens.shape)
    if "segments" in batch:
        sight = AttentionMask(batch["segments"], packed=True)
        return Inputs(tokens, batch["types"], batch["positions"], sight)
    types, sight = batch.get("types"), batch.get("sight")
    if types is None:
        second = (at >= batch["first"][:, None]) & (at < batch["size"][:, None])
        types = jnp.where(second, 1, 0)
    if sight is None:
        sight = AttentionMask.of_sizes(batch["size"], tokens.shape[-1])
    return Inputs(tokens, types, at, sight)


class Embeddings(nn.Module):
    """Words, positions and token types, summed; layer norm first, dropout second
    (bert/modeling.py embedding_postprocessor). Rotary positions have no table; the norm stays
    with `pre_norm`, as in ModernBERT."""

    config: Encoder
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Inputs) -> Float[Array, "b l e"]:
        c, init = self.config, initializer(self.config)
        word_init = _with_zero_row(init, c.pad_id) if c.zero_pad_row else init
        word = positionwise(self, "word", word_init, (c.vocab_size, c.embedding_width))
        word = constrain(word, "tensor", None)
        h = word[x.tokens]
        if c.positions == "learned":
            position = self.param("position", init, (c.position_rows, c.embedding_width))
            h = h + constrain(position, None, None)[x.positions + c.position_offset]
        if c.token_types:
            types = jnp.minimum(x.types, c.token_types - 1)  # an imported RoBERTa has one type
            table = self.param("type", init, (c.token_types, c.embedding_width))
            h = h + constrain(table, None, None)[types]
        h = layer_norm(c, self.dtype, "norm")(h)
        return constrain(dropout(h, c.dropout, dropout_key(self)), BATCH_AXES, None, None)


class Stack(nn.Module):
    """The projection from the embedding width, then all layers, then the norm that `pre_norm`
    leaves to the end: the last layer's output is what came through it."""

    config: Encoder
    dtype: Dtype = jnp.float32
    keep: bool = False
    backend: str = "auto"
    remat: str = "none"

    @nn.compact
    def __call__(
        self, x: Float[Array, "b l e"], sight: AttentionMask, turns: RotaryCosSin | None = None
    ) -> tuple[Float[Array, "b l d"], Any]:
        c = self.config
        if c.embedding_width != c.hidden_size:
            init = projection_initializer(c)
            x = dense(c, c.hidden_size, self.dtype, "projection", init)(x)
        scan = nn.scan(
            Block,
            variable_axes={"params": 0},
            split_rngs={"params": True, "dropout": True},
            in_axes=(nn.broadcast, nn.broadcast, 0),  # type: ignore[arg-type]
            length=c.num_groups,
        )
        first = x
        stack = scan(c, self.dtype, self.keep, self.backend, self.remat, name="layers")
        x, kept = stack(x, sight, turns, global_layers(c))
        if c.pre_norm:
            x = constrain(layer_norm(c, self.dtype, "norm")(x), BATCH_AXES, None, None)
        if self.keep:
            kept = kept.reshape(c.layers, *x.shape)
            kept = jnp.concatenate([first[None], kept[:-1], x[None]])
        return x, kept


def global_layers(config: Encoder) -> Bool[Array, "g n"] | None:
    """Which layers see beyond the window; None where none has one. A value that the scan reads
    rather than a structure, so that depth costs no compile time.

        layers 8, global_every 3     x . . x . . x .
    """
    if config.window is None:
        return None
    far = np.arange(config.layers) % config.global_every == 0
    return jnp.asarray(far.reshape(config.num_groups, -1))


class Network(nn.Module):
    """Embeddings, encoder, and heads, each of which may read what those before it made."""

    config: Encoder
    heads: Mapping[str, Head] = field(default_factory=dict)
    dtype: Dtype = jnp.float32
    keep: bool = False
    attention: str = "auto"  # its backend (attention/)
    remat: str = "none"  # what is computed twice rather than kept (REMAT)

    @nn.compact
    def __call__(self, batch: Batch) -> dict[str, Any]:
        """`hidden` [b l d], `layers` [n+1 b l d] if kept, and what each head makes of them.

        Layer 0 is what enters the first layer, layer i the output of layer i.
        """
        x = inputs(batch)
        h = Embeddings(self.config, self.dtype, name="embeddings")(x)
        stack = Stack(
            self.config, self.dtype, self.keep, self.attention, self.remat, name="encoder"
        )
        h, kept = stack(h, x.sight, rotary_cos_sin(self.config, x.positions))
        out = {"hidden": h, "layers": kept}
        for name, head in self.heads.items():
            out[name] = head(self.config, dtype=self.dtype, name=name)(out, batch)
        return out


def _with_zero_row(init: jax.nn.initializers.Initializer, row: int) -> Any:
    return lambda *args: init(*args).at[row].set(0.0)
