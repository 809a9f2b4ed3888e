"""Optimizers and schedules against float64 implementations of the published formulas."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bert_jax.config import ALBERT, BERT, ELECTRA, ROBERTA, SPANBERT, Optim
from bert_jax.optim import (
    is_weight,
    layerwise_lr_decay,
    num_layer_axes,
    optimizer,
    scale_by_trust_ratio,
    schedule,
    updates_done,
)
from bert_jax.utils.pytree import flatten_with_names, map_with_names

SHAPES = {
    "embeddings": {"word": (11, 4), "norm": {"scale": (4,)}},
    "encoder": {
        "layers": {
            "attention": {"query": {"kernel": (3, 4, 4), "bias": (3, 4)}},
            "attention_norm": {"scale": (3, 4)},
            "own": {"mlp": {"up": {"kernel": (3, 2, 4, 8), "bias": (3, 2, 8)}}},
        }
    },
    "mlm": {"bias": (11,)},
}
NAMES = ["bert_adam", "lamb", "fairseq_adam", "adamw"]
PUBLISHED = [e.optim for e in (BERT, ALBERT, ROBERTA, ELECTRA, SPANBERT)]


def normal(seed, scale=1.0):
    rng = np.random.default_rng(seed)

    def draw(shape):
        return jnp.array(np.float32(scale * rng.normal(size=shape)))

    return jax.tree.map(draw, SHAPES, is_leaf=lambda x: isinstance(x, tuple))


def steady(**changes):
    """A config whose first update already moves: no warm-up, no clipping."""
    return Optim(**({"peak_lr": 1e-2, "warmup_steps": 0, "clip_norm": None} | changes))


@functools.cache
def compiled(config, steps):
    opt = optimizer(config, steps)

    def step(carry, grads):
        params, state = carry
        updates, state = opt.update(grads, state, params)
        return (optax.apply_updates(params, updates), state), None

    return jax.jit(lambda p, g: jax.lax.scan(step, (p, opt.init(p)), g)[0][0])


def run(config, params, gradients, steps):
    """Parameters after one update per gradient, all in one compiled scan."""
    return compiled(config, steps)(params, jax.tree.map(lambda *g: np.stack(g), *gradients))


def first(opt, params, grads):
    """The first update, and the state after it."""
    return jax.jit(lambda p, g: opt.update(g, opt.init(p), p))(params, grads)


def rate(c, t, T):
    """The published schedules in plain Python."""
    w, peak, left = c.warmup_steps, c.peak_lr, max(1 - t / T, 0)
    if c.schedule == "electra":
        return peak * left * min(1, t / w if w else 1)
    if t < w or (c.schedule != "bert" and t == w > 0):
        return peak * t / w
    if c.schedule == "roberta" and t < T:
        return peak * (1 - (t - w) / (T - w))
    return peak * left


def reference(c, params, gradients, steps):
    """Parameters after one update per gradient, in float64, one separate layer at a time."""
    out, gradients = {}, [flatten_with_names(g) for g in gradients]
    for name, leaf in flatten_with_names(params).items():
        axes, weight = num_layer_axes(name), "norm" not in name and not name.endswith("bias")
        p = np.float64(leaf).reshape(-1, *leaf.shape[axes:])  # layers first
        m, v = np.zeros_like(p), np.zeros_like(p)
        for t, grads in enumerate(gradients):
            g, lr = np.float64(grads[name]).reshape(p.shape), rate(c, t, steps)
            m, v = c.b1 * m + (1 - c.b1) * g, c.b2 * v + (1 - c.b2) * g * g
            m1, v1 = 1 - c.b1 ** (t + 1), 1 - c.b2 ** (t + 1)
            wd = c.weight_decay if weight or c.decay == "all" else 0.0
            if c.name == "fairseq_adam":
                p = p - lr * wd * p
                p = p - lr * np.sqrt(v1) / m1 * m / (np.sqrt(v) + c.eps)
                continue
            u = m / (np.sqrt(v) + c.eps)
            if c.name == "adamw":
                u = m / m1 / (np.sqrt(v / v1) + c.eps)
            u = u + wd * p
            for i in range(len(p)):
                ratio = 1.0
                if c.name == "lamb" and weight:
                    ratio = np.linalg.norm(p[i]) / np.linalg.norm(u[i])
                p[i] -= lr * ratio * u[i]
        out[name] = p.reshape(leaf.shape)
    return out


def assert_close(actual, expected, tolerance):
    for name, leaf in flatten_with_names(actual).items():
        error = np.abs(np.float64(leaf) - expected[name]).max() / np.abs(expected[name]).max()
        assert error < tolerance, (name, error)


# ---- schedules


@pytest.mark.parametrize("name", ["bert", "electra", "roberta", "spanbert"])
@pytest.mark.parametrize(("w", "T"), [(0, 7), (1, 1), (3, 10), (10, 10), (20, 10), (97, 1000)])
def test_a_schedule_equals_its_formula_at_every_step(name, w, T):
    c, steps = Optim(schedule=name, warmup_steps=w, peak_lr=3e-4), jnp.arange(1005)
    actual = schedule(c, T)(steps)
    np.testing.assert_allclose(actual, [rate(c, t, T) for t in steps.tolist()], 1e-6, 1e-12)
    assert actual.dtype == np.float32


@pytest.mark.parametrize("c", PUBLISHED, ids=lambda c: f"{c.name}-{c.schedule}")
def test_published_schedules_start_and_end_at_zero_and_are_exact_to_the_last_step(c):
    T = 1_000_000
    at = schedule(c, T)
    jitted = jax.jit(at)
    assert at(0) == at(T) == at(T + 1) == at(2 * T) == 0
    for t in (1, c.warmup_steps - 1, c.warmup_steps, c.warmup_steps + 1, T // 3, T - 1):
        np.testing.assert_allclose(jitted(t), rate(c, t, T), rtol=1e-6)


def test_schedules_differ_where_warm_up_ends():
    at = {
        n: schedule(Optim(schedule=n, warmup_steps=100, peak_lr=1.0), 1000)
        for n in ("bert", "electra", "roberta", "spanbert")
    }
    assert {n: round(float(f(100)), 6) for n, f in at.items()} == {
        "bert": 0.9,
        "electra": 0.9,
        "roberta": 1.0,
        "spanbert": 1.0,
    }
    assert {n: round(float(f(101)), 6) for n, f in at.items()} == {
        "bert": 0.899,
        "electra": 0.899,
        "roberta": 0.998889,
        "spanbert": 0.899,
    }


def test_decay_steps_are_the_length_of_the_schedule():
    c = Optim(warmup_steps=2, decay_steps=50)
    assert schedule(c, 10)(20) == schedule(Optim(warmup_steps=2), 50)(20) > 0


# ---- optimizers against their formulas


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


# ---- by name


def test_weight_decay_depends_on_names_not_ranks():
    params, zero = normal(0), jax.tree.map(jnp.zeros_like, normal(0))
    after = flatten_with_names(run(steady(weight_decay=0.1), params, [zero], 9))
    every = flatten_with_names(run(steady(weight_decay=0.1, decay="all"), params, [zero], 9))
    for name, p in flatten_with_names(params).items():
        weight = name.endswith(("kernel", "word"))
        np.testing.assert_allclose(after[name], p * 0.999 if weight else p, rtol=1e-6)
        np.testing.assert_allclose(every[name], p * 0.999, rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "weight", "axes"),
    [
        ("embeddings/word", True, 0),
        ("embeddings/position", True, 0),
        ("embeddings/norm/scale", False, 0),
        ("encoder/projection/kernel", True, 0),
        ("encoder/layers/attention/query/bias", False, 1),
        ("encoder/layers/mlp_norm/scale", False, 1),
        ("discriminator/encoder/layers/mlp/up/kernel", True, 1),
        ("encoder/layers/own/mlp/up/kernel", True, 2),
        ("mlm/bias", False, 0),
        ("bias", False, 0),
    ],
)
def test_weights_and_layer_axes_follow_from_names(name, weight, axes):
    assert (is_weight(name), num_layer_axes(name)) == (weight, axes)


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


def test_layerwise_lr_decay_is_that_of_electra():
    rates = layerwise_lr_decay(0.8, 12)
    stack = np.asarray(rates("encoder/layers/mlp/up/kernel", (12, 4, 8)))
    assert stack.shape == (12, 1, 1)
    np.testing.assert_allclose([stack[-1, 0, 0], stack[0, 0, 0]], [0.64, 0.8**13], rtol=1e-6)
    assert round(float(stack[0, 0, 0]), 3) == 0.055
    for name in ("embeddings/word", "encoder/projection/kernel"):
        assert round(float(rates(name, (4, 4))), 3) == 0.044
    assert rates("classifier/kernel", (4, 2)) == 1
    own = np.asarray(rates("encoder/layers/own/mlp/up/bias", (3, 4, 8)))
    np.testing.assert_array_equal(own.reshape(-1), stack.reshape(-1))
    shared = np.asarray(rates("encoder/layers/mlp/up/bias", (3, 8)))
    np.testing.assert_array_equal(shared[:, 0], stack[3::4, 0, 0])


def test_layer_rates_scale_the_update_including_weight_decay():
    params, grads, rates = normal(0), normal(1), layerwise_lr_decay(0.5, 6)
    plain, scaled = (optimizer(steady(), 9, f) for f in (None, rates))
    u, s = first(plain, params, grads)[0], first(scaled, params, grads)[0]
    assert_close(s, flatten_with_names(map_with_names(lambda n, x: x * rates(n, x.shape), u)), 1e-6)


# ---- the state, and invalid values


@pytest.mark.parametrize("name", NAMES)
def test_moments_are_separate_float32_buffers_shaped_as_the_parameters(name):
    params, opt = normal(0), optimizer(steady(name=name), 9)
    state = opt.init(params)
    moments = next(s for s in state if hasattr(s, "m"))
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
        ({"warmup_steps": -1}, "optim.warmup_steps is -1: expected at least 0"),
        ({"b1": 1.0}, "optim.b1 is 1.0: expected 0 <= x < 1"),
        ({"b2": -0.1}, "optim.b2 is -0.1: expected 0 <= x < 1"),
        ({"eps": 0.0}, "optim.eps is 0.0: expected more than 0"),
        ({"weight_decay": -1.0}, "optim.weight_decay is -1.0: expected at least 0"),
        ({"clip_norm": 0.0}, "optim.clip_norm is 0.0: expected more than 0, or None"),
        ({"decay_steps": -3}, "optim.decay_steps is -3: expected at least 1"),
    ],
)
def test_a_constant_out_of_range_is_rejected(changes, message):
    with pytest.raises(ValueError, match=message):
        optimizer(Optim(**changes), 10)


def test_layer_rates_reject_invalid_decays_and_layers():
    with pytest.raises(ValueError, match=r"layer decay is 0\.0: expected 0 < x <= 1"):
        layerwise_lr_decay(0.0, 12)
    with pytest.raises(
        ValueError, match="holds 5 sets of parameters: expected a divisor of the 12"
    ):
        layerwise_lr_decay(0.8, 12)("encoder/layers/mlp/up/kernel", (5, 4, 8))
