"""The words that stood where a generator's samples stand: what ELECTRA's paper (Clark et al. 2020,
section 3.4) compares replaced tokens with.

    labels    the cat sat on the mat        Replace MLM      dog -> cat, the masked places alone
    tokens    the dog sat on the mat        All-Tokens MLM   every place; `copy` may point at it
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from bert_jax.model.heads import LMHeadOutput
from bert_jax.objectives.losses import Mean, in_chunks, project, weighted_mean
from bert_jax.utils.types import Batch


def at_masked(batch: Batch) -> Float[Array, "b l"]:
    """1 at the places of predictions."""
    b, length = batch["labels"].shape
    at = jnp.where(batch["weights"] > 0, batch["masked"], length)
    return jax.vmap(lambda row, i: row.at[i].set(1.0, mode="drop"))(jnp.zeros((b, length)), at)


def everywhere(batch: Batch) -> Batch:
    """The batch with a prediction at every place."""
    places = jnp.broadcast_to(jnp.arange(batch["labels"].shape[-1]), batch["labels"].shape)
    return {**batch, "masked": places}


def with_copies(
    head: LMHeadOutput,
    copy: Float[Array, "b l"],
    table: Float[Array, "v e"],
    pieces: int,
    batch: Batch,
    weights: Float[Array, "b l"],
) -> tuple[Mean, Mean]:
    """Cross-entropy in nat and accuracy of the words that stood there under the law

    p(x) = D [x is the token that stands there] + (1 - D) softmax(x),   D = sigmoid(copy)
    """

    def some(
        features: jax.Array, copy: jax.Array, tokens: jax.Array, labels: jax.Array, of: jax.Array
    ) -> tuple[tuple[Mean, Mean], None]:
        logits = project(features, head.bias, table).astype(jnp.float32)
        log_p = logits - jax.nn.logsumexp(logits, axis=-1, keepdims=True)
        log_p += jax.nn.log_sigmoid(-copy)[..., None]
        at = jax.lax.broadcasted_iota(jnp.int32, logits.shape, logits.ndim - 1)
        copied = jnp.logaddexp(log_p, jax.nn.log_sigmoid(copy)[..., None])
        log_p = jnp.where(at == tokens[..., None], copied, log_p)
        chosen = jnp.where(at == labels[..., None], log_p, 0.0).sum(-1)
        right = jnp.argmax(jax.lax.stop_gradient(log_p), axis=-1) == labels
        return (weighted_mean(-chosen, of), weighted_mean(right.astype(jnp.float32), of)), None

    rows = (head.features, copy, batch["tokens"], batch["labels"], weights)
    return in_chunks(some, pieces, *rows)[0]
