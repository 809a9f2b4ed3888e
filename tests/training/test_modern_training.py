"""Modern encoders in training: they learn, go on exactly, and do not mind the mesh."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from bert_jax.config import Experiment, Mesh, replace
from bert_jax.training.step import compute_gradients
from tests.helpers import modern_options, shared_steps, tiny_configs
from tests.helpers.compare import metric_lines, same_bits
from tests.training.test_step import fit

MESHES = [Mesh(1, 2, 2), Mesh(4, 1, 1), Mesh(1, 4, 1)]


def losses(config: Experiment, mesh: Mesh, steps: int, one: bool = False) -> Any:
    """Of every step, on one batch again and again or on others; and the parameters after them."""
    steps_of_mesh = shared_steps.tiny(config, mesh)
    state, values = steps_of_mesh.init(), []
    for i in range(steps):
        batch = steps_of_mesh.to_devices(tiny_configs.batch(8, 0 if one else 8 * i))
        state, metrics = steps_of_mesh.train(state, batch)
        values.append(float(metrics["loss"]))
    return np.array(values), jax.device_get(state.params)


@pytest.mark.slow_unless("bert-adamw")
@pytest.mark.parametrize(("family", "optimizer"), [("bert", "adamw"), ("electra", "muon")])
def test_thirty_steps_on_one_batch_lower_the_loss(family: str, optimizer: str) -> None:
    config = replace(modern_options.tiny_config(family, optimizer), run=dict(steps=30))
    values, _ = losses(config, Mesh(1), 30, one=True)
    assert values[-1] < (0.7 if family == "bert" else 0.9) * values[0]


@pytest.mark.slow
@pytest.mark.nightly
@pytest.mark.parametrize("mesh", MESHES, ids=str)
def test_four_devices_are_one(mesh: Mesh) -> None:
    """Muon's matrices and what it leaves to AdamW."""
    config = modern_options.tiny_config("bert", "muon")
    expected, params = losses(config, Mesh(1), 4)
    values, other = losses(config, mesh, 4)
    np.testing.assert_allclose(values, expected, rtol=1e-5)
    for a, b in zip(jax.tree.leaves(other), jax.tree.leaves(params), strict=True):
        assert np.linalg.norm(a - b) <= 1e-3 * np.linalg.norm(b)


@pytest.mark.slow
def test_six_steps_with_muon_are_three_and_three(tmp_path: Path) -> None:
    """With the rate of masking on its way too: bit for bit."""
    config = modern_options.tiny_config("bert", "muon", layers=2)
    config = replace(config, optim=dict(decay_steps=6), objective=dict(masking=PACE))
    whole = fit(config, tmp_path / "whole")
    fit(replace(config, run=dict(steps=3)), tmp_path / "parts")
    assert same_bits(whole, fit(config, tmp_path / "parts"))
    assert metric_lines(tmp_path / "whole") == metric_lines(tmp_path / "parts")


PACE = dict(rate=0.4, final_rate=0.1)


@pytest.mark.slow
def test_a_step_masks_at_the_rate_that_is_its_turn() -> None:
    """Half way between the two, at step 5 of 10, on any mesh and in micro-batches."""
    config = modern_options.tiny_config(layers=2)
    config = replace(config, objective=dict(masking=PACE), run=dict(steps=10))
    objective, batch = tiny_configs.build(config), tiny_configs.batch()

    def share(step: int, accumulate: int = 1) -> float:
        accumulating = replace(config, optim=dict(accumulate=accumulate))
        params = jax.eval_shape(objective.init, jax.random.key(0))
        params = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), params)
        f = jax.jit(lambda p, s, b: compute_gradients(accumulating, objective, p, s, b, 0)[1])
        return float(f(params, step, batch)["mlm_loss"].count) / float(batch["size"].sum())

    assert share(0) == pytest.approx(0.4, abs=0.03)
    assert share(5) == pytest.approx(0.25, abs=0.03) == share(5, accumulate=2)
    assert share(10) == share(99) == pytest.approx(0.1, abs=0.03)
