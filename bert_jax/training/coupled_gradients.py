"""Exact gradient accumulation for losses that couple the rows of a batch.

Such a loss is no sum over micro-batches: every query is ranked among the documents of all of them.
It is a function of outputs that each row has by itself, and those are small. So the step

1. computes the outputs of all rows by micro-batches, and keeps no intermediate values;
2. computes the loss of all outputs, and its gradient with respect to them;
3. computes each micro-batch again, and multiplies that gradient by its Jacobian (vjp).

The result is the gradient of a plain step, for the memory of a micro-batch and a second forward
pass (GradCache, Gao et al. 2021, section 3). Both passes draw the same dropout, because a row's
dropout depends only on the key and on its position in the whole batch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from bert_jax.objectives import CoupledObjective, total_loss
from bert_jax.utils.pytree import join_rows, split_rows
from bert_jax.utils.types import Batch


def coupled_gradients(
    objective: CoupledObjective,
    whole: Callable[[Any], Any],
    params: Any,
    batch: Batch,
    key: jax.Array,
    counts: dict[str, jax.Array],
    accumulate: int,
) -> Any:
    """((loss, terms), gradient), this device's share of each: summed over devices they are those of
    the whole batch. `whole(params)` are all parameters of the objective. `counts` are the whole
    batch's; `accumulate` is the number of micro-batches."""

    def loss(params: Any, outputs: Any) -> tuple[jax.Array, Any]:
        terms = objective.coupled_terms(whole(params), outputs, batch)
        return total_loss(objective.weights, terms, counts), terms

    def plain(params: Any) -> tuple[jax.Array, Any]:
        return loss(params, objective.row_outputs(whole(params), batch, key))

    if accumulate == 1:
        return jax.value_and_grad(plain, has_aux=True)(params)
    parts = split_rows(batch, accumulate)
    outputs = jax.lax.map(lambda part: objective.row_outputs(whole(params), part, key), parts)
    outputs = join_rows(outputs)
    gradient = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)
    value, (direct, d_outputs) = gradient(params, outputs)

    def add(total: Any, part: tuple[Batch, Any]) -> tuple[Any, None]:
        rows, d_rows = part
        _, vjp = jax.vjp(lambda params: objective.row_outputs(whole(params), rows, key), params)
        return jax.tree.map(jnp.add, total, vjp(d_rows)[0]), None

    total, _ = jax.lax.scan(add, direct, (parts, split_rows(d_outputs, accumulate)))
    return value, total
