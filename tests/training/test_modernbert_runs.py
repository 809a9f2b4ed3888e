"""A ModernBERT, and ELECTRAs with gradient-disentangled embeddings, train as the five families do:
six steps are three and three, four devices are one, and padding changes nothing."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax.config import Mesh, replace
from bert_jax.utils.pytree import flatten_with_names
from tests.helpers import tiny_configs
from tests.helpers.compare import metric_lines, same_bits
from tests.helpers.marks import NIGHTLY
from tests.training.test_step import equal_steps, fit, step_of

pytestmark = pytest.mark.slow
# An ELECTRA of ModernBERTs is both others at once.
NAMES = ["modernbert", "disentangled", pytest.param("modern_electra", marks=pytest.mark.nightly)]
each = pytest.mark.parametrize("name", NAMES)


@pytest.mark.parametrize(
    "name",
    ["modernbert", *(pytest.param(n, marks=NIGHTLY) for n in ("disentangled", "modern_electra"))],
)
def test_six_steps_are_three_and_three(name: str, tmp_path: Path) -> None:
    config = replace(tiny_configs.LATER[name], optim=dict(decay_steps=6))
    whole = fit(config, tmp_path / "whole")
    fit(replace(config, run=dict(steps=3)), tmp_path / "parts")
    assert same_bits(whole, fit(config, tmp_path / "parts"))
    assert metric_lines(tmp_path / "whole") == metric_lines(tmp_path / "parts")


@pytest.mark.parametrize(
    ("name", "attention"),
    [
        ("modernbert", "auto"),
        *(
            pytest.param(n, "auto", marks=pytest.mark.nightly)
            for n in ("disentangled", "modern_electra")
        ),
        pytest.param("modernbert", "blocked", marks=pytest.mark.nightly),
    ],
)
def test_four_devices_are_one(name: str, attention: str) -> None:
    dropout = dict(attention_dropout=0.2)
    config = replace(tiny_configs.LATER[name], encoder=dropout, run=dict(attention=attention))
    start, one, a = step_of(config, Mesh(1))
    for mesh in (Mesh(4), Mesh(1, 2, 2)):
        _, four, b = step_of(config, mesh)
        assert abs(one - four) < 1e-5 * one
        if name == "modernbert":  # a sampled token may flip at a near tie
            equal_steps(start, a, b)


@each
def test_padded_positions_have_no_gradient(name: str) -> None:
    """Other tokens there change neither the loss nor a gradient."""
    config = tiny_configs.without_dropout(tiny_configs.LATER[name])
    objective, params = tiny_configs.build(config), tiny_configs.initial_params(config)
    batch = tiny_configs.corrupted_batch(config)
    padding = jnp.arange(batch["tokens"].shape[1]) >= batch["size"][:, None]
    both = {k: jnp.where(padding, 7, batch[k]) for k in ("tokens", "labels")}

    def loss(params: dict, batch: dict) -> jax.Array:
        terms = objective.terms(params, batch, None)
        return sum((terms[k].value for k in objective.weights), jnp.zeros(()))

    step = jax.jit(jax.value_and_grad(loss))
    (a, grads), (b, others) = step(params, batch), step(params, {**batch, **both})
    assert a == b
    for leaf, gradient in flatten_with_names(grads).items():
        np.testing.assert_array_equal(gradient, flatten_with_names(others)[leaf], err_msg=leaf)
