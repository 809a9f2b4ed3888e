"""A ModernBERT trains as the five families do: four devices are one, and padding changes
nothing."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax.config import MODERNBERT, Experiment, Mesh, replace
from bert_jax.utils.pytree import flatten_with_names
from tests.helpers import tiny_configs
from tests.training.test_step import equal_steps, step_of

TINY: Experiment = replace(
    MODERNBERT,
    encoder=tiny_configs.ENCODER
    | dict(layers=4, mlp_size=20, pad_id=0, window=4, attention_output_dropout=0.1),
    data=dict(batch_size=8, length=tiny_configs.LENGTH),
    optim=dict(warmup_steps=2, peak_lr=1e-3, decay_steps=6),
    run=tiny_configs.RUN,
)


@pytest.mark.slow
def test_four_devices_are_one() -> None:
    start, one, a = step_of(TINY, Mesh(1))
    _, four, b = step_of(TINY, Mesh(1, 2, 2))
    assert abs(one - four) < 1e-5 * one
    equal_steps(start, a, b)


@pytest.mark.slow
def test_padded_positions_have_no_gradient() -> None:
    """Other tokens there change neither the loss nor a gradient."""
    objective = tiny_configs.build(tiny_configs.without_dropout(TINY))
    params = tiny_configs.initial_params(TINY)
    batch = tiny_configs.corrupted_batch(TINY)
    padding = jnp.arange(batch["tokens"].shape[1]) >= batch["size"][:, None]
    other = {**batch, "tokens": jnp.where(padding, 7, batch["tokens"])}

    def loss(params: dict, batch: dict) -> jax.Array:
        return objective.terms(params, batch, None)["mlm_loss"].value

    step = jax.jit(jax.value_and_grad(loss))
    (a, grads), (b, others) = step(params, batch), step(params, other)
    assert a == b
    for name, gradient in flatten_with_names(grads).items():
        np.testing.assert_array_equal(gradient, flatten_with_names(others)[name], err_msg=name)
