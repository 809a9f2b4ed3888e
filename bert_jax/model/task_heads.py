"""Fine-tuning heads: modules `(out, batch) -> logits`, as in heads.py.

Parameters, n being `Supervised.outputs`:

    pooler   dense (d, d)                            if `head` is pooler; see heads.py
    prediction   dense (d, d)  norm (d)              if `head` is prediction
    label    dense (d, n)  first (d, d)              `first` if `head` is gelu or relu
    tag      dense (d, n)
    span     dense (d, 2)                            if `span` is linear
             start (d, 1)  end_first (2d, w)  end_norm (w)  end (w, 1)
             answerable_first (2d, w)  answerable (w, 1)      if joint; end_norm: ALBERT only

Axes: b batch, l length, d hidden, n labels, k starts and m ends of a search, w width.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype
from jaxtyping import Array, Bool, Float, Int

from bert_jax.config import ROBERTA_LIKE, Encoder, Supervised
from bert_jax.model.encoder import Head
from bert_jax.model.heads import Pooler, gather_positions
from bert_jax.model.layers import (
    ACTIVATIONS,
    add_bias,
    dense,
    dropout,
    dropout_key,
    initializer,
    layer_norm,
)
from bert_jax.model.pooling import pool_tokens
from bert_jax.utils.types import Batch

MASKED_LOGIT = -1e30  # of a position that cannot be an answer; finite, so that 0 times it is 0


def task_heads(task: Supervised, search: bool = False) -> dict[str, Head]:
    """The heads of an objective by name, in the order in which a network applies them. With
    `search` a joint span head searches for the start instead of reading it from the batch."""
    joint = task.task_type == "qa" and task.span == "joint"
    if task.head == "prediction" and not joint:
        pooling = "none" if task.task_type in ("tagging", "qa") else task.pooling
        return {"prediction": partial(PredictionHead, pooling=pooling), **_last_head(task, search)}
    return _last_head(task, search)


def _last_head(task: Supervised, search: bool) -> dict[str, Head]:
    options = dict(rate=task.dropout, head_init=task.init)
    if task.task_type == "tagging":
        return {"tag": partial(TagHead, size=task.num_outputs, **options)}
    if task.task_type == "qa" and task.span == "linear":
        rate = task.dropout if task.family in ("distilbert", "modernbert") else 0.0
        return {"span": partial(SpanHead, head_init=task.init, rate=rate)}
    if task.task_type == "qa":
        albert = task.family == "albert"
        beam = beam_size(task) if search else 0
        return {"span": partial(JointSpanHead, albert=albert, beam=beam, **options)}
    label = partial(LabelHead, size=task.num_outputs, head=task.head, **options)
    if task.head != "pooler":
        return {"label": label}
    pooler_rate = task.dropout if task.family in ROBERTA_LIKE else 0.0
    return {"pooler": partial(Pooler, rate=pooler_rate), "label": label}


def beam_size(task: Supervised) -> int:
    """How many starts a joint span head searches, and ends per start; 0 for other heads."""
    if task.task_type != "qa" or task.span != "joint":
        return 0
    return 5 if task.family == "albert" else 20


def _head_initializer(config: Encoder, init: str) -> jax.nn.initializers.Initializer:
    """The initializer of a head's own layers. ELECTRA names none, which in TensorFlow 1 means
    Glorot."""
    return jax.nn.initializers.glorot_uniform() if init == "glorot" else initializer(config)


def _logits(
    config: Encoder, size: int, name: str, init: jax.nn.initializers.Initializer
) -> nn.Module:
    """The layer of a head's outputs. It computes in float32 whatever the network does: in bfloat16
    a year such as 1985 would be a multiple of 8, and the scores of documents would tie."""
    return dense(config, size, jnp.float32, name, init, logits=True)


class PredictionHead(nn.Module):
    """A dense layer, an activation and a norm, on each token [b l d] or on what stands for a text
    [b d]: its first token, or the mean of its tokens (ModernBERT)."""

    config: Encoder
    pooling: Literal["cls", "mean", "none"] = "none"
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, out: dict[str, Any], batch: Batch) -> Float[Array, "b *l d"]:
        c, h = self.config, out["hidden"]
        if self.pooling == "cls":
            h = h[:, 0]
        elif self.pooling == "mean":
            h = pool_tokens(h, batch["size"], ("mean",)).astype(h.dtype)
        h = dense(c, c.hidden_size, self.dtype, "dense", part="head")(h)
        return layer_norm(c, self.dtype, "norm")(ACTIVATIONS[c.head_activation or c.activation](h))


class LabelHead(nn.Module):
    """Logits of a text: dropout and a dense layer on the pooled vector (bert/run_classifier.py
    create_model), on the first token (electra/finetune/classification), on a dense layer and a
    GELU of the first token (Hugging Face's ELECTRA), on one and a ReLU (DistilBERT), which has
    dropout only after them, or on `PredictionHead`."""

    config: Encoder
    size: int = 2
    head: Literal["pooler", "first", "gelu", "relu", "prediction"] = "pooler"
    rate: float = 0.0
    head_init: str = "same"
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, out: dict[str, Any], batch: Batch) -> Float[Array, "b n"]:
        c = self.config
        h = out[self.head] if self.head in ("pooler", "prediction") else out["hidden"][:, 0]
        if self.head != "relu":
            h = dropout(h, self.rate, dropout_key(self))
        if self.head in ("gelu", "relu"):
            h = ACTIVATIONS[self.head](dense(c, c.hidden_size, self.dtype, "first")(h))
            h = dropout(h, self.rate, dropout_key(self))
        return _logits(c, self.size, "dense", _head_initializer(c, self.head_init))(h)


class TagHead(nn.Module):
    """Logits of every token: dropout and a dense layer."""

    config: Encoder
    size: int = 2
    rate: float = 0.0
    head_init: str = "same"
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, out: dict[str, Any], batch: Batch) -> Float[Array, "b l n"]:
        h = dropout(out.get("prediction", out["hidden"]), self.rate, dropout_key(self))
        init = _head_initializer(self.config, self.head_init)
        return _logits(self.config, self.size, "dense", init)(h)


class SpanHead(nn.Module):
    """Logits of an answer's first and last token over the real tokens, from one dense layer
    (bert/run_squad.py create_model, which also allows padding); dropout in DistilBERT alone, and in
    ModernBERT where its rate is not 0."""

    config: Encoder
    rate: float = 0.0
    head_init: str = "same"
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, out: dict[str, Any], batch: Batch) -> dict[str, Float[Array, "b l"]]:
        init = _head_initializer(self.config, self.head_init)
        h = dropout(out.get("prediction", out["hidden"]), self.rate, dropout_key(self))
        logits = _logits(self.config, 2, "dense", init)(h)
        is_real = _positions(logits) < batch["size"][:, None]
        start, end = (jnp.where(is_real, logits[..., i], MASKED_LOGIT) for i in range(2))
        return {"start": start, "end": end}


class JointSpanHead(nn.Module):
    """Logits of the start, of the end given the start, and of having no answer
    (albert/squad_utils.py create_v2_model; electra/finetune/qa/qa_tasks.py).

        start        dense on every token, over the tokens that may answer
        end          dense on f(start token, every token)
        answerable   dense on f(first token, expected start token); positive: no answer

    ALBERT: f is tanh of a dense layer of the hidden width; for `end` followed by a layer norm, for
    `answerable` followed by dropout and a layer without bias. ELECTRA: f is a GELU of width 512.

    Without `beam` it returns logits: `start` [b l], `end` [b l] given the start in the batch,
    `answerable` [b]. With `beam` it returns the best starts and the best ends of each as
    log-probabilities, `start` [b k], `end` [b k m], and their positions `start_at`, `end_at`.
    """

    config: Encoder
    albert: bool = False
    beam: int = 0
    rate: float = 0.0
    head_init: str = "same"
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, out: dict[str, Any], batch: Batch) -> dict[str, Array]:
        c, h, init = self.config, out["hidden"], _head_initializer(self.config, self.head_init)
        width = c.hidden_size if self.albert else 512
        act = jnp.tanh if self.albert else ACTIVATIONS["gelu"]
        allowed = self._allowed(h, batch)

        start = _logits(c, 1, "start", init)(h)[..., 0]
        start = jnp.where(allowed, start, MASKED_LOGIT)

        weights = jax.nn.softmax(start).astype(h.dtype)
        pooled = jnp.concatenate([h[:, 0], jnp.einsum("bl,bld->bd", weights, h)], axis=-1)
        pooled = act(dense(c, width, self.dtype, "answerable_first", init)(pooled))
        pooled = dropout(pooled, self.rate if self.albert else 0.0, dropout_key(self))
        layer = nn.Dense(1, not self.albert, jnp.float32, kernel_init=init, name="answerable")
        answerable = layer(pooled)[..., 0]

        beam = min(self.beam, c.max_length)
        starts, at = top_k_log_probs(start, beam) if beam else (start, batch["start"][:, None])
        ends = act(
            PairwiseDense(width, init, self.dtype, name="end_first")(gather_positions(h, at), h)
        )
        if self.albert:
            ends = layer_norm(c, self.dtype, "end_norm")(ends)
        end = _logits(c, 1, "end", init)(ends)[..., 0]
        end = jnp.where(allowed[:, None], end, MASKED_LOGIT)

        if not beam:
            return {"start": start, "end": end[:, 0], "answerable": answerable}
        ends, end_at = top_k_log_probs(end, beam)
        spans = {"start": starts, "start_at": at, "end": ends, "end_at": end_at}
        return {**spans, "answerable": answerable}

    def _allowed(self, h: Float[Array, "b l d"], batch: Batch) -> Bool[Array, "b l"]:
        """Positions that may answer: the document's tokens and [CLS], which means no answer; in
        ELECTRA also the [SEP] after the document."""
        at, size = _positions(h), batch["size"][:, None] - self.albert
        return (at == 0) | ((at >= batch["context"][:, None]) & (at < size))


class PairwiseDense(nn.Module):
    """A dense layer on every pair of vectors, `[state, token] @ kernel + bias`, without
    materializing the pairs."""

    features: int
    kernel_init: jax.nn.initializers.Initializer
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(
        self, states: Float[Array, "b k d"], tokens: Float[Array, "b l d"]
    ) -> Float[Array, "b k l w"]:
        d = tokens.shape[-1]
        kernel = self.param("kernel", self.kernel_init, (2 * d, self.features)).astype(self.dtype)
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        # Added in float32, in which the gradients are then summed over pairs, too.
        of_states = (states @ kernel[:d]).astype(jnp.float32)[:, :, None]
        of_tokens = add_bias((tokens @ kernel[d:]).astype(jnp.float32), bias)[:, None]
        return (of_states + of_tokens).astype(self.dtype)


def top_k_log_probs(
    logits: Float[Array, "*s l"], beam: int
) -> tuple[Float[Array, "*s k"], Int[Array, "*s k"]]:
    """The `beam` largest log-probabilities and their positions, or all if there are fewer."""
    log_probs, at = jax.lax.top_k(jax.nn.log_softmax(logits), min(beam, logits.shape[-1]))
    return log_probs, at


def _positions(h: Float[Array, "b l d"]) -> Int[Array, "1 l"]:
    return jnp.arange(h.shape[1], dtype=jnp.int32)[None]
