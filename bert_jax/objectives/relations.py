"""Self-attention relations (MiniLMv2, Wang et al. 2021, section 3.2).

A layer's queries Q, keys K and values V are vectors [b l d] of all attention heads together. Split
anew into `heads` relation heads of width k = d / heads, each gives three relations [b h l l]:

    softmax(Q Q^T / sqrt(k))     softmax(K K^T / sqrt(k))     softmax(V V^T / sqrt(k))

over the tokens that a token may attend to. A student learns the teacher's by their KL divergence:
the number of relation heads is common to both, so neither widths nor attention heads need agree.

With rotary positions queries and keys are taken before they are rotated, because a relation head
cuts through the pairs that a rotation mixes. Windows of local layers do not apply.

Axes: b batch, l length, d hidden, h relation heads, k their width, n layers.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp

from bert_jax.config import Encoder
from bert_jax.distributed.constraints import BATCH_AXES, constrain
from bert_jax.model.attention import AttentionMask
from bert_jax.model.layers import dense, layer_norm
from bert_jax.objectives.losses import Mean
from bert_jax.utils.types import Params

PROJECTIONS = ("query", "key", "value")


def attention_params(params: Params, encoder: Encoder, layer: int) -> Params:
    """The attention parameters of a layer (from 1) of a network's stack. The norm before it is left
    out where the first layer has none."""
    stack, per_group = params["encoder"]["layers"], encoder.layers // encoder.num_groups
    group, at = divmod(layer - 1, per_group)
    if encoder.share_params == "mlp":  # each layer of a group has its own attention
        return jax.tree.map(lambda x: x[group, at], stack["own"])
    attention, normless = stack["attention"], 0 if encoder.first_norm else 1
    own = {name: jax.tree.map(lambda x: x[group], attention[name]) for name in PROJECTIONS}
    if group >= normless:
        own["norm"] = jax.tree.map(lambda x: x[group - normless], attention["norm"])
    return own


def queries_keys_values(
    params: Params, encoder: Encoder, inputs: jax.Array, layer: int
) -> tuple[jax.Array, ...]:
    """Q, K and V [b l d] of a layer (from 1) whose input is `inputs` [b l d]."""
    own = attention_params(params, encoder, layer)
    x: Any = inputs
    if encoder.pre_norm and "norm" in own:
        x = layer_norm(encoder, x.dtype).apply({"params": own["norm"]}, x)
    project: Any = dense(encoder, encoder.hidden_size, x.dtype, part="attention")
    return tuple(project.apply({"params": own[name]}, x) for name in PROJECTIONS)


def relation_loss(
    student: tuple[jax.Array, ...],
    teacher: tuple[jax.Array, ...],
    segments: jax.Array,
    packed: bool,
    heads: int,
) -> Mean:
    """The sum over Q, K and V of KL(teacher's relation || student's), averaged over relation heads
    and real tokens. `segments` [b l] as in `AttentionMask`."""
    mask = AttentionMask(segments, packed)
    visible = jnp.broadcast_to(mask.to_bool(), (*segments.shape, segments.shape[-1]))[:, None]
    is_real = segments > 0
    total = jnp.float32(0)
    for x, y in zip(student, teacher, strict=True):
        log_q, log_p = (_log_relation(z, visible, heads) for z in (x, y))
        log_p = jax.lax.stop_gradient(log_p)
        kl = jnp.where(visible, jnp.exp(log_p) * (log_p - log_q), 0.0).sum(-1)  # b h l
        total += jnp.where(is_real[:, None], kl, 0.0).sum() / heads
    return Mean(total, is_real.sum().astype(jnp.float32))


def _log_relation(x: jax.Array, visible: jax.Array, heads: int) -> jax.Array:
    """The logarithms of one relation [b h l l], float32."""
    b, length, d = x.shape
    x = x.reshape(b, length, heads, d // heads).swapaxes(1, 2)
    x = constrain(x, BATCH_AXES, "tensor", None, None)
    dims = "bhlk,bhmk->bhlm"
    logits = jnp.einsum(dims, x, x, preferred_element_type=jnp.float32) / math.sqrt(d // heads)
    return jax.nn.log_softmax(jnp.where(visible, logits, -1e30))


def check_heads(heads: int, **encoders: Encoder) -> None:
    """ValueError: the number of relation heads does not divide a width."""
    for who, encoder in encoders.items():
        if encoder.hidden_size % heads:
            raise ValueError(
                f"distill.relation_heads is {heads}, but the {who}'s width is "
                f"{encoder.hidden_size}: expected a number that divides the widths of both"
            )


def resolve_layer(layer: int | None, encoder: Encoder) -> int:
    """The number, from 1, of a layer; None is the last, -1 too. ValueError: there is no such."""
    number = encoder.layers if layer is None else layer if layer > 0 else encoder.layers + 1 + layer
    if not 1 <= number <= encoder.layers:
        raise ValueError(
            f"distill.teacher_layer is {layer}, but the teacher has {encoder.layers} layers: "
            f"expected 1 to {encoder.layers}, or -{encoder.layers} to -1"
        )
    return number
