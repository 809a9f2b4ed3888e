"""Optimizers against float64 implementations of the published formulas."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bert_jax.config import Optim
from bert_jax.optim import is_weight, optimizer, scale_by_trust_ratio, schedule, updates_done
from bert_jax.utils.pytree import flatten_with_names, map_with_names
from tests.helpers.reference_optim import (
    NAMES,
    PUBLISHED,
    assert_close,
    first,
    normal,
    reference,
    run,
    steady,
)

# ---- against their formulas


@pytest.mark.parametrize("name", NAMES)
def test_one_update_equals_the_formula(name):
    c, params = steady(name=name, peak_lr=1.0), normal(0)
    grads = jax.tree.map(lambda x: jnp.sign(x) * 10 ** (3 * x - 3), normal(1))  # some below eps
    updates, _ = first(optimizer(c, 10), params, grads)
    after = reference(c, params, [grads], 10)
    exact = {n: after[n] - np.float64(p) for n, p in flatten_with_names(params).items()}
    assert_close(updates, exact, 1e-6)


@pytest.mark.parametrize("c", PUBLISHED, ids=lambda c: f"{c.name}-{c.schedule}")
def test_a_thousand_updates_equal_the_formula(c):
    c = dataclasses.replace(c, warmup_steps=100, peak_lr=1e-3, clip_norm=None)
    params, gradients = normal(0), [normal(100 + i, 0.1 + i % 7) for i in range(1000)]
    assert_close(run(c, params, gradients, 1000), reference(c, params, gradients, 1000), 1e-5)


def test_stable_adamw_equals_the_formula_where_one_layer_has_a_spike():
    """The spike of one layer shortens the step of that layer alone."""
    c, params = steady(name="stable_adamw", b2=0.9), normal(0)
    gradients = [normal(i) for i in range(1, 6)]
    kernel = gradients[-1]["encoder"]["layers"]["attention"]["query"]["kernel"]
    spike = kernel.at[1].multiply(100.0)
    gradients[-1]["encoder"]["layers"]["attention"]["query"]["kernel"] = spike
    after, expected = run(c, params, gradients, 5), reference(c, params, gradients, 5)
    assert_close(after, expected, 1e-5)
    plain = reference(dataclasses.replace(c, name="adamw"), params, gradients, 5)
    name = "encoder/layers/attention/query/kernel"
    changes = np.abs(expected[name] - plain[name]).reshape(3, -1).max(1)
    assert changes[1] > 2 * max(changes[0], changes[2])


def test_adamw_equals_optax():
    c, params, gradients = steady(name="adamw"), normal(0), [normal(i) for i in range(1, 20)]
    weights = map_with_names(lambda n, _: is_weight(n), params)
    opt = optax.adamw(schedule(c, 50), c.b1, c.b2, c.eps, weight_decay=c.weight_decay, mask=weights)
    optax_params, state, update = params, opt.init(params), jax.jit(opt.update)
    for g in gradients:
        updates, state = update(g, state, optax_params)
        optax_params = optax.apply_updates(optax_params, updates)
    assert_close(run(c, params, gradients, 50), flatten_with_names(optax_params), 1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_the_first_update_of_a_warm_up_changes_nothing_but_the_moments(name):
    updates, state = first(optimizer(Optim(name=name, warmup_steps=5), 10), normal(0), normal(1))
    assert all((u == 0).all() for u in jax.tree.leaves(updates))
    assert updates_done(state) == 1
    assert any((m != 0).any() for m in jax.tree.leaves(state))


def test_gradients_are_clipped_by_their_global_norm():
    params, grads = normal(0), normal(1)
    norm = np.sqrt(sum(np.sum(np.square(g)) for g in jax.tree.leaves(grads)))
    shrunk = jax.tree.map(lambda g: np.asarray(g) * 0.5 / norm, grads)
    clipped = run(steady(clip_norm=0.5), params, [grads], 9)
    assert_close(clipped, flatten_with_names(run(steady(), params, [shrunk], 9)), 1e-6)
    loose = run(steady(clip_norm=1e6), params, [grads], 9)
    assert_close(loose, flatten_with_names(run(steady(), params, [grads], 9)), 1e-9)


def test_lamb_over_stacked_layers_is_lamb_over_separate_layers():
    params, gradients = normal(0), [normal(i) for i in range(1, 30)]
    stacked = run(steady(name="lamb"), params, gradients, 50)["encoder"]["layers"]
    for i, j in np.ndindex(3, 2):

        def layer(tree, i=i, j=j):
            cut = lambda n, x: x[i, j] if n.startswith("own") else x[i]  # noqa: E731
            return {"one": map_with_names(cut, tree["encoder"]["layers"])}

        alone = run(steady(name="lamb"), layer(params), [layer(g) for g in gradients], 50)
        assert_close(layer({"encoder": {"layers": stacked}}), flatten_with_names(alone), 1e-6)


def test_a_trust_ratio_is_one_where_a_norm_is_zero():
    ratio = scale_by_trust_ratio()
    p = {"layers": {"kernel": jnp.stack([jnp.zeros((2, 2)), jnp.ones((2, 2)), jnp.ones((2, 2))])}}
    p = {"encoder": p}
    u = jax.tree.map(lambda x: x.at[0].set(3).at[1].set(0).at[2].set(4), p)
    out, _ = ratio.update(u, ratio.init(p), p)
    assert out["encoder"]["layers"]["kernel"][:, 0, 0].tolist() == [3, 0, 1]


# ---- the state, and invalid values


@pytest.mark.parametrize("name", NAMES)
def test_moments_are_separate_float32_buffers_shaped_as_the_parameters(name):
    params, opt = normal(0), optimizer(steady(name=name), 9)
    state = opt.init(params)
    inner = jax.tree.leaves(state, is_leaf=lambda s: hasattr(s, "m"))
    moments = next(s for s in inner if hasattr(s, "m"))
    for tree in (moments.m, moments.v):
        assert jax.tree.map(jnp.shape, tree) == jax.tree.map(jnp.shape, params)
        assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(tree))
    leaves = jax.tree.leaves(state)
    assert len({x.unsafe_buffer_pointer() for x in leaves}) == len(leaves)
    update = jax.jit(opt.update, donate_argnums=1)
    _, new = update(normal(1), state, params)
    assert jax.tree.structure(new) == jax.tree.structure(state)
    assert all(x.is_deleted() for x in leaves)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"warmup_steps": -1}, "optim.warmup_steps is -1: expected 0 to"),
        ({"b1": 1.0}, "optim.b1 is 1.0: expected 0 <= x < 1"),
        ({"b2": -0.1}, "optim.b2 is -0.1: expected 0 <= x < 1"),
        ({"eps": 0.0}, "optim.eps is 0.0: expected more than 0"),
        ({"weight_decay": -1.0}, "optim.weight_decay is -1.0: expected at least 0"),
        ({"clip_norm": 0.0}, "optim.clip_norm is 0.0: expected more than 0, or None"),
        ({"decay_steps": -3}, "optim.decay_steps is -3: expected 1 to"),
    ],
)
def test_a_constant_out_of_range_is_rejected(changes, message):
    with pytest.raises(ValueError, match=message):
        optimizer(Optim(**changes), 10)
