"""Weight decay, layer axes and layer rates follow from names."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax import objectives
from bert_jax.config import ELECTRA, replace
from bert_jax.optim import (
    Depth,
    is_weight,
    layerwise_lr_decay,
    network_depth,
    num_layer_axes,
    optimizer,
)
from bert_jax.training import step
from bert_jax.utils.pytree import flatten_with_names, is_stacked, map_with_names
from tests.helpers import tiny_configs
from tests.helpers.hf_fixtures import random_params
from tests.helpers.reference_optim import assert_close, first, normal, run, steady


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


def test_layerwise_lr_decay_is_that_of_electra():
    rates = layerwise_lr_decay(0.8, Depth(12))
    stack = np.asarray(rates("encoder/layers/mlp/up/kernel", (12, 4, 8)))
    assert stack.shape == (12, 1, 1)
    np.testing.assert_allclose([stack[-1, 0, 0], stack[0, 0, 0]], [0.64, 0.8**13], rtol=1e-6)
    assert round(float(stack[0, 0, 0]), 3) == 0.055
    for name in ("embeddings/word", "encoder/projection/kernel"):
        assert round(float(rates(name, (4, 4))), 3) == 0.044
    heads = ("pooler/dense", "label/dense", "label/first", "tag/dense", "span/end_first")
    assert all(
        rates(f"{head}/kernel", (4, 2)) == rates(f"{head}/bias", (2,)) == 1 for head in heads
    )
    own = np.asarray(rates("encoder/layers/own/mlp/up/bias", (3, 4, 8)))
    np.testing.assert_array_equal(own.reshape(-1), stack.reshape(-1))
    shared = np.asarray(rates("encoder/layers/mlp/up/bias", (3, 8)))
    np.testing.assert_array_equal(shared[:, 0], stack[3::4, 0, 0])


@pytest.mark.parametrize("first_norm", [True, False])
def test_a_generator_has_the_rates_of_its_own_depth(first_norm: bool) -> None:
    """Of 12 and 6 layers, and every leaf of both towers has one."""
    sizes = dict(layers=12, hidden_size=64, heads=1, vocab_size=20, embedding_size=8)
    encoder = dict(pre_norm=True, first_norm=first_norm, **sizes)
    config = replace(ELECTRA, encoder=encoder, objective=dict(generator_layers=0.5))
    rates = layerwise_lr_decay(0.5, network_depth(config))
    for name, x in flatten_with_names(objectives.param_shapes(config)).items():
        if is_stacked(name):
            layers = 6 if name.startswith("generator/") else 12
            expected = 0.5 ** (layers + 1 - np.arange(layers))
            actual = np.ravel(rates(name, x.shape))
            np.testing.assert_allclose(actual, expected[layers - len(actual) :], rtol=1e-6)
            assert len(actual) >= layers - 1
    assert rates("generator/encoder/projection/kernel", (4, 4)) == 0.5**8


def test_layer_rates_scale_the_update_including_weight_decay():
    params, grads, rates = normal(0), normal(1), layerwise_lr_decay(0.5, Depth(6))
    plain, scaled = (optimizer(steady(), 9, f) for f in (None, rates))
    u, s = first(plain, params, grads)[0], first(scaled, params, grads)[0]
    assert_close(s, flatten_with_names(map_with_names(lambda n, x: x * rates(n, x.shape), u)), 1e-6)


def test_the_layer_decay_of_a_config_scales_the_updates_of_its_run() -> None:
    """Of 2 layers with 1/2: the heads by 1, the top layer by 1/4, and each part below by half."""
    config = replace(tiny_configs.FAMILIES["bert"], optim=dict(warmup_steps=0, clip_norm=None))
    params = random_params(config)
    plain, scaled = (
        flatten_with_names(first(step._optimizer(c), params, params)[0])
        for c in (config, replace(config, optim=dict(layer_decay=0.5)))
    )
    factors = {"encoder": [1 / 8, 1 / 4], "embeddings": 1 / 16}
    for name, u in plain.items():
        factor = np.reshape(factors.get(name.split("/")[0], 1.0), (-1,) + (1,) * (u.ndim - 1))
        np.testing.assert_allclose(scaled[name], u * factor, rtol=1e-5)


def test_layer_rates_reject_invalid_decays_and_layers():
    with pytest.raises(ValueError, match=r"layer decay is 0\.0: expected 0 < x <= 1"):
        layerwise_lr_decay(0.0, Depth(12))
    with pytest.raises(
        ValueError, match="holds 5 sets of parameters: expected a divisor of the 12"
    ):
        layerwise_lr_decay(0.8, Depth(12))("encoder/layers/mlp/up/kernel", (5, 4, 8))
