"""One layer of the encoder, and the block that a group's layers share.

    attention/{query, key, value, out}/{kernel (d, d), bias (d)}   norm/{scale, bias} (d)
    mlp/{up (d, f), gate (d, f), down (f, d)}/{kernel, bias}       norm      gate: of a gated MLP

Norms stand behind each part's residual, x -> norm(x + part(x)), as in BERT, or with `pre_norm`
in front, x -> x + part(norm(x)) (Xiong et al. 2020).

Axes: b batch, l length, d hidden, h heads, k head width, f feed-forward, r = k/2.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype
from jaxtyping import Array, Bool, Float

from bert_jax.config import Encoder
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
)


class Attention(nn.Module):
    """Self-attention with its residual and norm."""

    config: Encoder
    dtype: Dtype = jnp.float32
    backend: str = "auto"

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b l d"],
        sight: AttentionMask,
        turns: RotaryCosSin | None = None,
        far: Bool[Array, ""] | None = None,
    ) -> Float[Array, "b l d"]:
        """`turns` of rotary positions; `far`: this layer sees beyond `config.window`."""
        c, norm = self.config, layer_norm(self.config, self.dtype, "norm")
        seen = norm(x) if c.pre_norm else x

        def heads(name: str) -> Float[Array, "b h l k"]:
            y = dense(c, c.hidden_size, self.dtype, name)(seen)
            y = y.reshape(*y.shape[:-1], c.heads, c.head_size).swapaxes(1, 2)
            y = constrain(y, BATCH_AXES, "tensor", None, None)
            return y if turns is None or name == "value" else apply_rotary(y, turns)

        h = attention(
            heads("query"),
            heads("key"),
            heads("value"),
            sight,
            c.attention_dropout,
            dropout_key(self),
            c.window,
            # shapes alone matter at the start, and are the same where the backend does not run
            "xla" if self.is_initializing() else self.backend,
            far,
        )
        h = h.swapaxes(1, 2).reshape(x.shape)
        h = dropout(dense(c, c.hidden_size, self.dtype, "out")(h), c.dropout, dropout_key(self))
        return constrain(x + h if c.pre_norm else norm(x + h), BATCH_AXES, None, None)


class Mlp(nn.Module):
    """The feed-forward part with its residual and norm; no dropout inside."""

    config: Encoder
    dtype: Dtype = jnp.float32
    backend: str = "auto"  # of attention, which it has none of

    @nn.compact
    def __call__(self, x: Float[Array, "b l d"], *_: Any) -> Float[Array, "b l d"]:
        c, norm = self.config, layer_norm(self.config, self.dtype, "norm")
        h = norm(x) if c.pre_norm else x
        up = dense(c, c.mlp_width, self.dtype, "up")(h)
        if c.gated_mlp:
            gate = dense(c, c.mlp_width, self.dtype, "gate")(h)
            h = ACTIVATIONS[c.activation](gate) * up
        else:
            h = ACTIVATIONS[c.activation](up)
        h = dropout(dense(c, c.hidden_size, self.dtype, "down")(h), c.dropout, dropout_key(self))
        return constrain(x + h if c.pre_norm else norm(x + h), BATCH_AXES, None, None)


PARTS: dict[str, type[Attention] | type[Mlp]] = {"attention": Attention, "mlp": Mlp}

# What a layer keeps for its gradient, the rest being computed twice; None: all of it.
REMAT: dict[str, Any] = {
    "none": None,
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "full": jax.checkpoint_policies.nothing_saveable,
}


class Block(nn.Module):
    """One set of parameters, applied as often as its group has layers: once in BERT, for all
    layers in ALBERT. Each application draws its own dropout."""

    config: Encoder
    dtype: Dtype = jnp.float32
    keep: bool = False  # hand out every layer's output, for features from any layer
    backend: str = "auto"  # of attention
    remat: str = "none"

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b l d"],
        sight: AttentionMask,
        turns: RotaryCosSin | None,
        far: Bool[Array, " n"] | None,
    ) -> tuple[Float[Array, "b l d"], Any]:
        """`far`: which of the group's n layers see beyond the window."""
        c = self.config
        layers = c.layers // c.num_groups

        def layer(block: Block, x: Any, each: Any) -> tuple[Any, Any]:
            own, far = each
            for name, part in PARTS.items():
                if c.share_params in ("all", name):
                    x = part(c, self.dtype, self.backend, name=name)(x, sight, turns, far)
                else:
                    key = dropout_key(block)
                    rngs = {} if key is None else {"dropout": key}
                    alone = part(c, self.dtype, self.backend, parent=None)
                    x = alone.apply({"params": own}, x, sight, turns, far, rngs=rngs)
            return x, x if self.keep else None

        if REMAT[self.remat] is not None:
            layer = nn.remat(layer, policy=REMAT[self.remat], prevent_cse=False)
        scan = nn.scan(
            layer,
            variable_broadcast="params",
            split_rngs={"params": False, "dropout": True},
            length=layers,
        )
        return scan(self, x, (self._own(x, sight, turns, layers), far))

    def _own(
        self, x: jax.Array, sight: AttentionMask, turns: RotaryCosSin | None, layers: int
    ) -> Any:
        """Parameters per layer of the part that the group does not share (ALBERT's ablation)."""
        if self.config.share_params == "all":
            return None
        part = PARTS["mlp" if self.config.share_params == "attention" else "attention"]
        module = part(self.config, self.dtype, parent=None)

        def init(key: jax.Array) -> Any:
            return jax.vmap(lambda k: module.init(k, x, sight, turns)["params"])(
                jax.random.split(key, layers)
            )

        return self.param("own", init)
