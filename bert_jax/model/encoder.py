"""One encoder for all families: embeddings, `layers` layers with `groups` sets of parameters, and
heads.

Parameters of a network (BERT-base; a leading `groups` axis on everything under layers):

    embeddings   word (v, e)  position (p, e)  type (t, e)  norm/{scale, bias} (e)
    encoder      projection/{kernel (e, d), bias (d)}                      if e is not d
                 layers/{attention, mlp}/...                           see block.py
                 layers/own/...  instead of the sublayer that a group does not share, with
                                 a second leading axis: the layers of the group
                 norm/{scale, bias} (d)                                 with `pre_norm`
                 layers/attention/norm has one row less without `first_norm`: no layer 0
    mlm pooler pair sbo rtd                                                   see heads.py

Axes: b batch, l length, d hidden, e embedding width, f feed-forward, v vocabulary, g groups,
n layers of a group. Dropout is active if and only if a `dropout` key is given.
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

from bert_jax.config import Encoder, Lora
from bert_jax.distributed.constraints import BATCH_AXES, GPUS, constrain, platform
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

MAX_SELECTED_TYPES = 4  # token types whose rows are selected
Head = Callable[..., nn.Module]  # (config, dtype=, name=) -> a module of heads.py


class EncoderInputs(NamedTuple):
    """The inputs of an encoder."""

    tokens: Int[Array, "b l"]
    types: Int[Array, "b l"]
    positions: Int[Array, "#b l"]  # from 0 in every row; the table's offset is added later
    mask: AttentionMask


def encoder_inputs(batch: Batch) -> EncoderInputs:
    """The encoder's inputs of padded rows. `types` and `attention_mask` of the batch are used if
    they are there. Packed rows (objectives/packing.py) have all fields already.

        tokens    [CLS] a a [SEP] b [SEP] . .     size 6, first 4
        types       0   0 0   0   1   1   0 0
        segments    1   1 1   1   1   1   0 0
    """
    tokens = batch["tokens"]
    at = jnp.arange(tokens.shape[-1], dtype=jnp.int32)[None]  # of all rows: one look-up
    if "segments" in batch:
        mask = AttentionMask(batch["segments"], packed=True)
        return EncoderInputs(tokens, batch["types"], batch["positions"], mask)
    types, mask = batch.get("types"), batch.get("attention_mask")
    if types is None:
        second = (at >= batch["first"][:, None]) & (at < batch["size"][:, None])
        types = jnp.where(second, 1, 0)
    if mask is None:
        mask = AttentionMask.from_sizes(batch["size"], tokens.shape[-1])
    return EncoderInputs(tokens, types, at, mask)


class Embeddings(nn.Module):
    """The sum of word, position and token type embeddings, then layer norm, then dropout
    (bert/modeling.py embedding_postprocessor). Rotary positions have no table. With `pre_norm`
    the norm stays, as in ModernBERT."""

    config: Encoder
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: EncoderInputs) -> Float[Array, "b l e"]:
        c, init = self.config, initializer(self.config)
        word_init = _with_zero_row(init, c.pad_id) if c.zero_pad_row else init
        word = positionwise(self, "word", word_init, (c.vocab_size, c.embedding_width))
        word = constrain(word, "tensor", None)
        h = word[x.tokens]
        if c.positions == "learned":
            position = self.param("position", init, (c.position_rows, c.embedding_width))
            h = h + constrain(position, None, None)[x.positions + c.position_offset]
        if c.token_types:
            types = jnp.minimum(x.types, c.token_types - 1)  # an imported RoBERTa has a single type
            table = self.param("type", init, (c.token_types, c.embedding_width))
            h = h + _rows_of_types(constrain(table, None, None), types)
        h = layer_norm(c, self.dtype, "norm")(h)
        rate = c.dropout if c.embedding_dropout is None else c.embedding_dropout
        return constrain(dropout(h, rate, dropout_key(self)), BATCH_AXES, None, None)


def _rows_of_types(table: Float[Array, "t e"], types: Int[Array, "b l"]) -> Float[Array, "b l e"]:
    """`table[types]`. Of a few types the rows are selected and not looked up, so that the gradient
    is a sum and no scatter of all tokens into a few rows."""
    if len(table) > MAX_SELECTED_TYPES:
        return table[types]
    rows = jnp.broadcast_to(table[0], (*types.shape, table.shape[-1]))
    for i in range(1, len(table)):
        rows = jnp.where(types[..., None] == i, table[i], rows)
    return rows


class Stack(nn.Module):
    """The projection from the embedding width, all layers, and with `pre_norm` a final norm, whose
    output counts as that of the last layer."""

    config: Encoder
    dtype: Dtype = jnp.float32
    return_layers: bool = False
    backend: str = "auto"
    remat: str = "none"
    unroll: int | None = None
    lora: Lora | None = None

    @nn.compact
    def __call__(
        self, x: Float[Array, "b l e"], mask: AttentionMask, rotary: RotaryCosSin | None = None
    ) -> tuple[Float[Array, "b l d"], Any]:
        c = self.config
        if c.embedding_width != c.hidden_size:
            init = projection_initializer(c)
            x = dense(c, c.hidden_size, self.dtype, "projection", init)(x)
        # Without a gradient, several layers per iteration would only take longer to compile.
        trains = self.has_rng("dropout")
        unroll = layers_per_iteration(self.unroll, self.remat, c.layers) if trains else 1
        scan = nn.scan(
            Block,
            variable_axes={"params": 0},
            split_rngs={"params": True, "dropout": True},
            in_axes=(nn.broadcast, nn.broadcast, 0, 0),  # type: ignore[arg-type]
            length=c.num_groups,
            # Whole groups, so that the loop within a group does not multiply them.
            unroll=max(1, unroll * c.num_groups // c.layers),
        )
        if not c.first_norm:
            scan = nn.map_variables(
                scan, "params", _with_first_norm, _without_first_norm, init=True, mutable=True
            )
        layer_0 = x
        options = (self.dtype, self.return_layers, self.backend, self.remat, unroll)
        stack = scan(c, *options, self.lora, name="layers")
        is_first = None if c.first_norm else jnp.arange(c.layers)[:, None] == 0
        x, layers = stack(x, mask, rotary, global_layers(c), is_first)
        if c.pre_norm:
            x = constrain(layer_norm(c, self.dtype, "norm")(x), BATCH_AXES, None, None)
        if self.return_layers:
            layers = layers.reshape(c.layers, *x.shape)
            layers = jnp.concatenate([layer_0[None], layers[:-1], x[None]])
        return x, layers


def layers_per_iteration(unroll: int | None, remat: str, layers: int) -> int:
    """How many layers an iteration of the loop over layers has in training. None chooses: all on a
    GPU, where a loop copies what each layer stores for the gradient (a third of the step's memory
    traffic); one with remat, which is used where memory counts, and on other platforms."""
    if unroll is None:
        return layers if platform() in GPUS and remat == "none" else 1
    return min(unroll, layers)


def global_layers(config: Encoder) -> Bool[Array, "g n"] | None:
    """Which layers are global, i.e. have no attention window; None if no layer has one. The scan
    reads this array, so that compile time does not depend on depth.

        layers 8, global_every 3     x . . x . . x .
    """
    if config.window is None:
        return None
    is_global = np.arange(config.layers) % config.global_every == 0
    return jnp.asarray(is_global.reshape(config.num_groups, -1))


def _with_first_norm(variables: Any) -> Any:
    """The scan's parameters, from those of a network without a norm before the first layer: the
    norm of each layer's attention gets a row 0, which is not used and has no gradient."""
    return _map_first_norm(variables, lambda p: jnp.concatenate([jnp.ones_like(p[:1]), p]))


def _without_first_norm(variables: Any) -> Any:
    """The inverse of `_with_first_norm`."""
    return _map_first_norm(variables, lambda p: p[1:])


def _map_first_norm(variables: Any, f: Callable[[jax.Array], jax.Array]) -> Any:
    if "attention" not in variables.get("params", {}):
        return variables  # not initialized yet
    params = variables["params"]
    norm = jax.tree.map(f, params["attention"]["norm"])
    return {**variables, "params": {**params, "attention": {**params["attention"], "norm": norm}}}


class Network(nn.Module):
    """Embeddings, encoder, and heads. A head may read the outputs of the heads before it."""

    config: Encoder
    heads: Mapping[str, Head] = field(default_factory=dict)
    dtype: Dtype = jnp.float32
    return_layers: bool = False
    attention: str = "auto"  # the backend (attention/)
    remat: str = "none"  # what is recomputed instead of stored (REMAT)
    unroll: int | None = None  # layers per iteration of the scan (layers_per_iteration)
    lora: Lora | None = None  # of the adapters that its parameters may have (model/lora.py)

    @nn.compact
    def __call__(self, batch: Batch) -> dict[str, Any]:
        """`hidden` [b l d], `layers` [n+1 b l d] or None, and the output of each head by its name.

        Layer 0 is the input of the first layer, layer i the output of layer i.
        """
        x = encoder_inputs(batch)
        h = Embeddings(self.config, self.dtype, name="embeddings")(x)
        stack = Stack(
            self.config,
            self.dtype,
            self.return_layers,
            self.attention,
            self.remat,
            self.unroll,
            self.lora,
            name="encoder",
        )
        h, layers = stack(h, x.mask, rotary_cos_sin(self.config, x.positions))
        out = {"hidden": h, "layers": layers}
        for name, head in self.heads.items():
            out[name] = head(self.config, dtype=self.dtype, name=name)(out, batch)
        return out


def _with_zero_row(init: jax.nn.initializers.Initializer, row: int) -> Any:
    return lambda *args: init(*args).at[row].set(0.0)
