"""Muon by its properties."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bert_jax import objectives
from bert_jax.config import Mesh, Optim
from bert_jax.distributed.sharding import make_mesh, replicated, with_mesh
from bert_jax.optim import (
    Depth,
    is_hidden_kernel,
    layerwise_lr_decay,
    optimizer,
    schedule,
    updates_done,
)
from bert_jax.optim.transforms import orthogonalize
from bert_jax.perf import param_table
from bert_jax.utils import pytree
from bert_jax.utils.pytree import flatten_with_names, map_with_names
from tests.helpers import modern_options

SHAPES: dict[str, tuple[int, ...]] = {
    "embeddings/word": (11, 4),
    "encoder/projection/kernel": (4, 6),
    "encoder/layers/mlp/up/kernel": (3, 6, 10),
    "encoder/layers/mlp/up/bias": (3, 10),
    "encoder/layers/attention/out/kernel": (3, 6, 6),
    "encoder/layers/own/down/kernel": (3, 2, 10, 6),
    "mlm/dense/kernel": (6, 6),
    "mlm/bias": (11,),
}
HIDDEN = [n for n in SHAPES if "/layers/" in n and n.endswith("kernel")]


def normal(seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {n: jnp.float32(rng.normal(size=shape)) for n, shape in SHAPES.items()}


def steady(**changes: Any) -> Optim:
    fixed = dict(name="muon", peak_lr=1e-2, warmup_steps=0, clip_norm=None, decay_steps=1000)
    return Optim(**(fixed | changes))  # type: ignore[arg-type]


def run(opt: optax.GradientTransformation, params: Any, gradients: list[Any]) -> tuple[Any, Any]:
    """The last update, and the parameters after it."""
    state, update, updates = opt.init(params), jax.jit(opt.update), None
    for g in gradients:
        updates, state = update(g, state, params)
        params = optax.apply_updates(params, updates)
    return updates, params


def matrices(tree: Any) -> dict[str, np.ndarray]:
    """The matrices of every hidden kernel, one per layer, in double precision."""
    return {n: np.float64(tree[n]).reshape(-1, *tree[n].shape[-2:]) for n in HIDDEN}


def test_every_parameter_belongs_to_muon_or_adamw() -> None:
    config = modern_options.tiny_config("electra", "muon")
    params = objectives.param_shapes(config)
    state = jax.eval_shape(optimizer(config.optim, 9).init, params)
    moments = next(part for part in state if hasattr(part, "v"))
    adamw = set(flatten_with_names(moments.v))
    names = set(flatten_with_names(params))
    assert set(flatten_with_names(moments.m)) == names
    assert names - adamw == {n for n in names if is_hidden_kernel(n)}
    assert {n.split("/layers/")[-1] for n in names - adamw} == {
        f"{part}/kernel"
        for part in (
            *(f"attention/{n}" for n in ("query", "key", "value", "out")),
            *(f"mlp/{n}" for n in ("up", "gate", "down")),
        )
    }


def test_the_direction_of_each_layer_is_nearly_orthogonal() -> None:
    """The singular vectors are those of the momentum, the singular values near .2 sqrt(max)."""
    params, gradients = normal(0), [normal(i) for i in (1, 2, 3)]
    updates, _ = run(optimizer(steady(weight_decay=0.0), 9), params, gradients)
    rate = float(schedule(steady(), 9)(2))
    for name, layers in matrices(updates).items():
        m = 0.0
        for g in gradients:
            m = m + 0.05 * (matrices(g)[name] - m)
        lookahead = 0.95 * m + 0.05 * matrices(gradients[-1])[name]
        for u, x in zip(layers, lookahead, strict=True):
            left, _, right = np.linalg.svd(x, full_matrices=False)
            inner = left.T @ u @ right.T / (-rate * 0.2 * max(u.shape) ** 0.5)
            assert np.abs(inner - np.diag(np.diag(inner))).max() < 1e-4
            assert (np.diag(inner) > 0.5).all()
            assert (np.diag(inner) < 1.25).all()


@pytest.mark.parametrize("layers", [3, 4])
def test_layers_that_devices_do_not_divide_are_distributed_beside_zeros(layers: int) -> None:
    """And have the directions that they have on one device."""
    x = jnp.float32(np.random.default_rng(0).normal(size=(layers, 6, 4)))
    mesh = make_mesh(Mesh(2), jax.devices()[:2])
    everywhere = replicated(mesh)
    distributed = jax.jit(
        with_mesh(mesh, orthogonalize), in_shardings=everywhere, out_shardings=everywhere
    )
    program = distributed.lower(x).compile()
    # an iteration multiplies a rounding error of 6e-8 by up to 3.4445
    rounding = 6e-8 * 3.4445**5
    assert np.allclose(program(jax.device_put(x, everywhere)), orthogonalize(x), atol=rounding)
    products = re.findall(r"f32\[(\d+),4,4\]", program.as_text())
    assert {int(n) for n in products} == {-(-layers // 2)}


def test_the_direction_has_the_rms_of_adamw_for_any_shape() -> None:
    rng = np.random.default_rng(0)
    for m, n in ((64, 64), (64, 256), (256, 64)):
        p = {"encoder/layers/x/kernel": jnp.float32(rng.normal(size=(2, m, n)))}
        opt = optimizer(steady(weight_decay=0.0, peak_lr=1.0), 9)
        u = run(opt, p, [p])[0]["encoder/layers/x/kernel"]
        assert 0.15 < float(jnp.sqrt(jnp.mean(u * u))) < 0.22


def test_stacked_layers_are_updated_like_separate_ones() -> None:
    params, gradients = normal(0), [normal(i) for i in range(1, 6)]
    stacked = run(optimizer(steady(), 9), params, gradients)[1]
    for name, layers in matrices(stacked).items():
        for i, layer in enumerate(layers):

            def one(tree: Any, name: str = name, i: int = i) -> Any:
                x = tree[name].reshape(-1, *tree[name].shape[-2:])[i : i + 1]
                return {"encoder/layers/x/kernel": x}

            alone = run(optimizer(steady(), 9), one(params), [one(g) for g in gradients])[1]
            np.testing.assert_allclose(alone["encoder/layers/x/kernel"][0], layer, 1e-5, 1e-6)


def test_muon_equals_optax_after_bias_correction_has_faded() -> None:
    """optax corrects the bias of momentum and gradient separately, which fades as beta^t."""
    params, gradients = normal(0), [normal(i % 7) for i in range(1, 300)]
    actual = run(optimizer(steady(), 9), params, gradients)[0]
    numbers = optax.contrib.MuonDimensionNumbers(-2, -1)
    optax_muon = optax.contrib.muon(
        schedule(steady(), 9),
        weight_decay=0.01,
        consistent_rms=0.2,
        muon_weight_dimension_numbers={n: numbers if n in HIDDEN else None for n in SHAPES},
    )
    expected = run(optax_muon, params, gradients)[0]
    for name in HIDDEN:
        scale = np.abs(expected[name]).max()
        assert np.abs(actual[name] - expected[name]).max() < 1e-3 * scale, name


def test_other_parameters_are_updated_as_in_adamw() -> None:
    params, gradients = normal(0), [normal(i) for i in range(1, 6)]
    muon, adamw = (
        run(optimizer(steady(name=name), 9), params, gradients)[1] for name in ("muon", "adamw")
    )
    for name in SHAPES:
        assert np.array_equal(muon[name], adamw[name]) == (name not in HIDDEN)


def test_weight_decay_layer_rates_and_clipping_apply_to_matrices() -> None:
    params, zero = normal(0), jax.tree.map(jnp.zeros_like, normal(0))
    shrunk = run(optimizer(steady(weight_decay=0.1), 9), params, [zero])[1]
    for name in HIDDEN:
        np.testing.assert_allclose(shrunk[name], params[name] * 0.999, rtol=1e-6)
    rates = layerwise_lr_decay(0.5, Depth(6))
    plain, scaled = (run(optimizer(steady(), 9, f), params, [normal(1)])[0] for f in (None, rates))
    expected = map_with_names(lambda n, u: u * rates(n, u.shape), plain)
    for name in SHAPES:
        np.testing.assert_allclose(scaled[name], expected[name], rtol=1e-6)
    large = jax.tree.map(lambda g: 1e6 * g, normal(1))
    clipped = run(optimizer(steady(clip_norm=1.0), 9), params, [normal(1), large])[0]
    assert all(np.isfinite(u).all() for u in jax.tree.leaves(clipped))


def test_the_state_counts_updates_and_has_one_moment_for_matrices() -> None:
    opt, params = optimizer(steady(), 9), normal(0)
    state = opt.init(params)
    _, new = jax.jit(opt.update, donate_argnums=1)(normal(1), state, params)
    assert updates_done(new) == 1
    assert jax.tree.structure(new) == jax.tree.structure(state)
    assert all(x.is_deleted() for x in jax.tree.leaves(state))
    table = param_table.parameter_table(modern_options.tiny_config(optimizer="muon"))
    leaves = {leaf["name"]: leaf["count"] for leaf in table["parameters"]["leaves"]}
    hidden = sum(n for name, n in leaves.items() if is_hidden_kernel(name))
    total = pytree.count(objectives.param_shapes(modern_options.tiny_config()))
    assert table["bytes"]["state"] == 4 * (3 * total - hidden)


@pytest.mark.parametrize("value", [-0.1, 1.0])
def test_a_momentum_out_of_range_is_rejected(value: float) -> None:
    with pytest.raises(ValueError, match=f"optim.momentum is {value}: expected 0 <= x < 1"):
        optimizer(steady(momentum=value), 9)
