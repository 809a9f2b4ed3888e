"""One layer of the encoder, and the block of parameters that the layers of a group share.

    attention/{query, key, value, out}/{kernel (d, d), bias (d)}   norm/{scale, bias} (d)
    mlp/{up (d, f), gate (d, f), down (f, d)}/{kernel, bias}       norm      gate: gated MLPs only

Each sublayer is followed by a norm, x -> norm(x + sublayer(x)), as in BERT, or with `pre_norm`
preceded by one, x -> x + sublayer(norm(x)) (Xiong et al. 2020).

Axes: b batch, l length, d hidden, h heads, k head width, f feed-forward, r = k/2.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype
from jaxtyping import Array, Bool, Float

from bert_jax.config import Encoder, Lora
from bert_jax.distributed.constraints import BATCH_AXES, constrain
from bert_jax.model.attention import AttentionMask, attention
from bert_jax.model.layers import (
    ACTIVATIONS,
    RotaryCosSin,
    apply_rotary,
    dense,
    dropout,
    dropout_key,
    layer_norm,
    residual_initializer,
)


class Attention(nn.Module):
    """Self-attention with its residual connection and norm."""

    config: Encoder
    dtype: Dtype = jnp.float32
    backend: str = "auto"
    lora: Lora | None = None

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b l d"],
        mask: AttentionMask,
        rotary: RotaryCosSin | None = None,
        is_global: Bool[Array, ""] | None = None,
        is_first: Bool[Array, ""] | None = None,
    ) -> Float[Array, "b l d"]:
        """The layer's output [b l d]. `is_global`: `config.window` does not apply. `is_first`: the
        layer has no norm before it; None: every layer has one."""
        c, norm = self.config, layer_norm(self.config, self.dtype, "norm")
        dense_layer = partial(dense, c, c.hidden_size, self.dtype, part="attention", lora=self.lora)
        inputs = norm(x) if c.pre_norm else x
        if is_first is not None:
            inputs = jnp.where(is_first, x, inputs)
        cos_sin = None if rotary is None else rotary.of_layer(is_global)

        def heads(name: str) -> Float[Array, "b h l k"]:
            y = dense_layer(name)(inputs)
            y = y.reshape(*y.shape[:-1], c.heads, c.head_size).swapaxes(1, 2)
            y = constrain(y, BATCH_AXES, "tensor", None, None)
            return y if cos_sin is None or name == "value" else apply_rotary(y, cos_sin)

        h = attention(
            heads("query"),
            heads("key"),
            heads("value"),
            mask,
            c.attention_dropout,
            dropout_key(self),
            c.window,
            # `init` needs shapes only, which do not depend on the backend, and no GPU or TPU
            "xla" if self.is_initializing() else self.backend,
            is_global,
        )
        h = h.swapaxes(1, 2).reshape(x.shape)
        h = dense_layer("out", residual_initializer(c))(h)
        rate = c.dropout if c.attention_output_dropout is None else c.attention_output_dropout
        h = dropout(h, rate, dropout_key(self))
        return constrain(x + h if c.pre_norm else norm(x + h), BATCH_AXES, None, None)


class Mlp(nn.Module):
    """The feed-forward sublayer with its residual connection and norm."""

    config: Encoder
    dtype: Dtype = jnp.float32
    backend: str = "auto"  # unused, for the same signature as Attention
    lora: Lora | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "b l d"], *_: Any) -> Float[Array, "b l d"]:
        c, norm = self.config, layer_norm(self.config, self.dtype, "norm")
        layer = partial(dense, c, dtype=self.dtype, part="mlp", lora=self.lora)
        h = norm(x) if c.pre_norm else x
        up = layer(c.mlp_width, name="up")(h)
        if c.gated_mlp:
            gate = layer(c.mlp_width, name="gate")(h)
            h = ACTIVATIONS[c.activation](gate) * up
        else:
            h = ACTIVATIONS[c.activation](up)
        if c.mlp_dropout:
            h = dropout(h, c.mlp_dropout, dropout_key(self))
        h = layer(c.hidden_size, name="down", init=residual_initializer(c))(h)
        h = dropout(h, c.dropout, dropout_key(self))
        return constrain(x + h if c.pre_norm else norm(x + h), BATCH_AXES, None, None)


SUBLAYERS: dict[str, type[Attention] | type[Mlp]] = {"attention": Attention, "mlp": Mlp}

# What a layer stores for its gradient, the rest being recomputed; None: everything.
REMAT: dict[str, Any] = {
    "none": None,
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "full": jax.checkpoint_policies.nothing_saveable,
}


class Block(nn.Module):
    """One set of parameters, applied once per layer of its group: once in BERT, for all layers in
    ALBERT. Each application draws its own dropout."""

    config: Encoder
    dtype: Dtype = jnp.float32
    return_layers: bool = False  # also return the output of every layer
    backend: str = "auto"  # of attention
    remat: str = "none"
    unroll: int = 1
    lora: Lora | None = None

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b l d"],
        mask: AttentionMask,
        rotary: RotaryCosSin | None,
        is_global: Bool[Array, " n"] | None,
        is_first: Bool[Array, " n"] | None,
    ) -> tuple[Float[Array, "b l d"], Any]:
        """The output of the group's last layer, and of all n layers [n b l d] or None.
        `is_global`: the layers to which the window does not apply. `is_first`: the layer that has
        no norm before its attention; None: every layer has one."""
        c = self.config
        layers = c.layers // c.num_groups

        def layer(block: Block, x: Any, each: Any) -> tuple[Any, Any]:
            own, *is_global_is_first = each
            for name, sublayer in SUBLAYERS.items():
                if c.share_params in ("all", name):
                    module = sublayer(c, self.dtype, self.backend, self.lora, name=name)
                    x = module(x, mask, rotary, *is_global_is_first)
                else:
                    key = dropout_key(block)
                    rngs = {} if key is None else {"dropout": key}
                    module = sublayer(c, self.dtype, self.backend, self.lora, parent=None)
                    args = (x, mask, rotary, *is_global_is_first)
                    x = module.apply({"params": own}, *args, rngs=rngs)
            return x, x if self.return_layers else None

        if REMAT[self.remat] is not None:
            # Between the loops of the two passes nothing can be merged. Without loops it would be.
            no_loop = self.unroll >= c.layers
            layer = nn.remat(layer, policy=REMAT[self.remat], prevent_cse=no_loop)
        scan = nn.scan(
            layer,
            variable_broadcast="params",
            split_rngs={"params": False, "dropout": True},
            length=layers,
            unroll=min(self.unroll, layers),
        )
        return scan(self, x, (self._own_params(x, mask, rotary, layers), is_global, is_first))

    def _own_params(
        self, x: jax.Array, mask: AttentionMask, rotary: RotaryCosSin | None, layers: int
    ) -> Any:
        """Per-layer parameters of the sublayer that the group does not share, as in ALBERT's
        ablation; None if it shares both."""
        if self.config.share_params == "all":
            return None
        sublayer = SUBLAYERS["mlp" if self.config.share_params == "attention" else "attention"]
        module = sublayer(self.config, self.dtype, parent=None)

        def init(key: jax.Array) -> Any:
            return jax.vmap(lambda k: module.init(k, x, mask, rotary)["params"])(
                jax.random.split(key, layers)
            )

        if self.has_variable("params", "own"):  # perhaps with adapters, which `init` does not make
            return self.get_variable("params", "own")
        return self.param("own", init)
