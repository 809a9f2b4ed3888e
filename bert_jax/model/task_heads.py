"""Heads of fine-tuning: modules `(out, batch) -> logits`, as in heads.py.

Parameters, n being `Supervised.outputs`:

    pooler   dense (d, d)                            where `head` is pooler; see heads.py
    label    dense (d, n)  first (d, d)              `first` where `head` is gelu
    tag      dense (d, n)
    span     dense (d, 2)                            where `span` is linear
             start (d, 1)  end_first (2d, w)  end_norm (w)  end (w, 1)
             answerable_first (2d, w)  answerable (w, 1)      joint; end_norm in ALBERT's alone

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

from bert_jax.config import Encoder, Supervised
from bert_jax.model.encoder import Head
from bert_jax.model.heads import Pooler, at_positions
from bert_jax.model.layers import ACTIVATIONS, dense, dropout, dropout_key, initializer, layer_norm
from bert_jax.utils.types import Batch

HIDDEN = -1e30  # the logit of a position that cannot be an answer; finite, so that 0 x it is 0


def task_heads(task: Supervised, search: bool = False) -> dict[str, Head]:
    """The heads of an objective, in the order in which a network applies them. `search`: a
    joint span head looks for its starts itself, in place of being told the gold one."""
    rest = dict(rate=task.dropout, draw=task.init)
    if task.task_type == "tagging":
        return {"tag": partial(TagHead, size=task.num_outputs, **rest)}
    if task.task_type == "qa" and task.span == "linear":
        return {"span": partial(SpanHead, draw=task.init)}
    if task.task_type == "qa":
        albert = task.family == "albert"
        beam = beam_of(task) if search else 0
        return {"span": partial(JointSpanHead, albert=albert, beam=beam, **rest)}
    label = partial(LabelHead, size=task.num_outputs, head=task.head, **rest)
    if task.head != "pooler":
        return {"label": label}
    before = task.dropout if task.family == "roberta" else 0.0
    return {"pooler": partial(Pooler, rate=before), "label": label}


def beam_of(task: Supervised) -> int:
    """Starts that a joint span head follows up, and ends of each; 0 where there is none such."""
    if task.task_type != "qa" or task.span != "joint":
        return 0
    return 5 if task.family == "albert" else 20


def _last(config: Encoder, draw: str) -> jax.nn.initializers.Initializer:
    """Of a head's own layers. ELECTRA makes them without naming an initialiser, which in
    TensorFlow 1 is Glorot's."""
    return jax.nn.initializers.glorot_uniform() if draw == "glorot" else initializer(config)


class LabelHead(nn.Module):
    """Logits of a text: dropout, dense, on the pooled vector (bert/run_classifier.py
    create_model), on the first token (electra/finetune/classification), or after a dense layer
    and a GELU on it (Hugging Face's ELECTRA)."""

    config: Encoder
    size: int = 2
    head: Literal["pooler", "first", "gelu"] = "pooler"
    rate: float = 0.0
    draw: str = "same"
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, out: dict[str, Any], batch: Batch) -> Float[Array, "b n"]:
        c = self.config
        h = out["pooler"] if self.head == "pooler" else out["hidden"][:, 0]
        h = dropout(h, self.rate, dropout_key(self))
        if self.head == "gelu":
            h = ACTIVATIONS["gelu"](dense(c, c.hidden_size, self.dtype, "first")(h))
            h = dropout(h, self.rate, dropout_key(self))
        h = dense(c, self.size, self.dtype, "dense", _last(c, self.draw), logits=True)(h)
        return h.astype(jnp.float32)


class TagHead(nn.Module):
    """Logits of every token: dropout, dense."""

    config: Encoder
    size: int = 2
    rate: float = 0.0
    draw: str = "same"
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, out: dict[str, Any], batch: Batch) -> Float[Array, "b l n"]:
        h = dropout(out["hidden"], self.rate, dropout_key(self))
        init = _last(self.config, self.draw)
        layer = dense(self.config, self.size, self.dtype, "dense", init, logits=True)
        return layer(h).astype(jnp.float32)


class SpanHead(nn.Module):
    """Logits of an answer's first and last token over the real tokens, from one dense layer
    without dropout (bert/run_squad.py create_model, which admits padding too)."""

    config: Encoder
    draw: str = "same"
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, out: dict[str, Any], batch: Batch) -> dict[str, Float[Array, "b l"]]:
        init = _last(self.config, self.draw)
        layer = dense(self.config, 2, self.dtype, "dense", init, logits=True)
        logits = layer(out["hidden"]).astype(jnp.float32)
        real = _places(logits) < batch["size"][:, None]
        start, end = (jnp.where(real, logits[..., i], HIDDEN) for i in range(2))
        return {"start": start, "end": end}


class JointSpanHead(nn.Module):
    """An end that is told the start, and whether there is an answer at all
    (albert/squad_utils.py create_v2_model; electra/finetune/qa/qa_tasks.py).

        start        dense on every token, over the tokens that may answer
        end          dense on f(start's state, every token's state)
        answerable   dense on f(first token, the starts' expectation); positive: no answer

    ALBERT: f is tanh of a dense layer of the hidden width, for the end with a layer norm, for
    `answerable` with dropout and no bias behind. ELECTRA: f is a GELU of width 512.

    Without `beam`, logits: `start` [b l], `end` [b l] given the start in the batch,
    `answerable` [b]. With it, the `beam` best starts and as many ends of each, as
    log-probabilities `start` [b k], `end` [b k m], at `start_at` and `end_at`.
    """

    config: Encoder
    albert: bool = False
    beam: int = 0
    rate: float = 0.0
    draw: str = "same"
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, out: dict[str, Any], batch: Batch) -> dict[str, Array]:
        c, h, init = self.config, out["hidden"], _last(self.config, self.draw)
        width = c.hidden_size if self.albert else 512
        act = jnp.tanh if self.albert else ACTIVATIONS["gelu"]
        allowed = self._allowed(h, batch)

        start = dense(c, 1, self.dtype, "start", init, logits=True)(h)[..., 0].astype(jnp.float32)
        start = jnp.where(allowed, start, HIDDEN)

        weights = jax.nn.softmax(start).astype(h.dtype)
        both = jnp.concatenate([h[:, 0], jnp.einsum("bl,bld->bd", weights, h)], axis=-1)
        both = act(dense(c, width, self.dtype, "answerable_first", init)(both))
        both = dropout(both, self.rate if self.albert else 0.0, dropout_key(self))
        last = nn.Dense(1, not self.albert, dtype=self.dtype, kernel_init=init, name="answerable")
        answerable = last(both)[..., 0].astype(jnp.float32)

        beam = min(self.beam, c.max_length)
        starts, at = best(start, beam) if beam else (start, batch["start"][:, None])
        ends = act(Pairs(width, init, self.dtype, name="end_first")(at_positions(h, at), h))
        if self.albert:
            ends = layer_norm(c, self.dtype, "end_norm")(ends)
        end = dense(c, 1, self.dtype, "end", init, logits=True)(ends)[..., 0].astype(jnp.float32)
        end = jnp.where(allowed[:, None], end, HIDDEN)

        if not beam:
            return {"start": start, "end": end[:, 0], "answerable": answerable}
        ends, end_at = best(end, beam)
        found = {"start": starts, "start_at": at, "end": ends, "end_at": end_at}
        return {**found, "answerable": answerable}

    def _allowed(self, h: Float[Array, "b l d"], batch: Batch) -> Bool[Array, "b l"]:
        """The document's tokens and [CLS], which stands for no answer; ELECTRA's also has the
        [SEP] behind the document."""
        at, size = _places(h), batch["size"][:, None] - self.albert
        return (at == 0) | ((at >= batch["context"][:, None]) & (at < size))


class Pairs(nn.Module):
    """A dense layer on every pair of two vectors, `[state, token] @ kernel + bias`, without
    the pairs ever being written side by side."""

    features: int
    draw: jax.nn.initializers.Initializer
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(
        self, states: Float[Array, "b k d"], tokens: Float[Array, "b l d"]
    ) -> Float[Array, "b k l w"]:
        d = tokens.shape[-1]
        kernel = self.param("kernel", self.draw, (2 * d, self.features)).astype(self.dtype)
        bias = self.param("bias", nn.initializers.zeros, (self.features,)).astype(self.dtype)
        return (states @ kernel[:d])[:, :, None] + (tokens @ kernel[d:] + bias)[:, None]


def best(
    logits: Float[Array, "*s l"], beam: int
) -> tuple[Float[Array, "*s k"], Int[Array, "*s k"]]:
    """The likeliest places as log-probabilities, and where they are; at most all of them."""
    chosen, at = jax.lax.top_k(jax.nn.log_softmax(logits), min(beam, logits.shape[-1]))
    return chosen, at


def _places(h: Float[Array, "b l d"]) -> Int[Array, "1 l"]:
    return jnp.arange(h.shape[1], dtype=jnp.int32)[None]
