"""Norms, activations and logits have the values and the gradients of their formulas."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import erf

from bert_jax.config import replace
from bert_jax.model.heads import LMHeadOutput
from bert_jax.model.layers import ACTIVATIONS, add_bias
from bert_jax.model.norm import Norm
from bert_jax.objectives import total_loss
from tests.helpers import tiny_configs


def formula(
    x: jax.Array, scale: jax.Array, bias: Any, center: bool, epsilon: float = 1e-6
) -> jax.Array:
    x = x - x.mean(-1, keepdims=True) if center else x
    y = x / jnp.sqrt((x**2).mean(-1, keepdims=True) + epsilon) * scale
    return y if bias is None else y + bias


@pytest.mark.parametrize(
    ("center", "use_bias"), [(True, True), (True, False), (False, False)], ids=str
)
def test_norm_and_its_gradients_are_those_of_the_formula(center: bool, use_bias: bool) -> None:
    keys = jax.random.split(jax.random.key(0), 4)
    x, weight = (3 + jax.random.normal(key, (2, 5, 12)) for key in keys[:2])
    params = {"scale": jax.random.normal(keys[2], (12,))}
    if use_bias:
        params["bias"] = jax.random.normal(keys[3], (12,))
    norm: Any = Norm(1e-6, center, use_bias)

    def ours(x: jax.Array, params: Any) -> jax.Array:
        return jnp.sum(norm.apply({"params": params}, x) * weight)

    def expected(x: jax.Array, params: Any) -> jax.Array:
        return jnp.sum(formula(x, params["scale"], params.get("bias"), center) * weight)

    results = [jax.value_and_grad(f, (0, 1))(x, params) for f in (ours, expected)]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-5), *results)


def test_a_norm_in_16_bits_has_gradients_in_the_types_of_its_inputs() -> None:
    norm: Any = Norm(1e-6, dtype=jnp.bfloat16)
    x = jnp.ones((3, 8), jnp.bfloat16)
    params = jax.tree.map(lambda p: p.astype(jnp.bfloat16), norm.init(jax.random.key(0), x))
    gradients = jax.grad(lambda *a: norm.apply(*a).astype(jnp.float32).sum(), (0, 1))(params, x)
    assert {g.dtype for g in jax.tree.leaves(gradients)} == {jnp.dtype(jnp.bfloat16)}


def test_a_large_mean_costs_no_digits() -> None:
    """The fast variance, E[x^2] - E[x]^2, would be wrong in the first digit here."""
    x = 1000 + jax.random.normal(jax.random.key(0), (4, 64))
    norm: Any = Norm(1e-12)
    y = norm.apply(norm.init(jax.random.key(1), x), x)
    np.testing.assert_allclose(np.std(np.asarray(y), axis=-1), 1, rtol=1e-4)


def test_gelu_is_the_exact_one_in_16_bits_rounded_once() -> None:
    x = jnp.linspace(-6, 6, 2001)
    exact = np.asarray(x, np.float64) * (1 + erf(np.asarray(x, np.float64) / np.sqrt(2))) / 2
    np.testing.assert_allclose(ACTIVATIONS["gelu"](x), exact, atol=1e-6)
    half = x.astype(jnp.bfloat16)
    once = ACTIVATIONS["gelu"](half.astype(jnp.float32)).astype(jnp.bfloat16)
    assert (ACTIVATIONS["gelu"](half) == once).all()


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_logits_have_the_gradient_of_their_product(dtype: Any) -> None:
    """In bfloat16 to its precision, although its rows are multiplied in bfloat16."""
    keys = jax.random.split(jax.random.key(0), 4)
    features, table = (
        jax.random.normal(k, (*s, 16)) for k, s in zip(keys, [(2, 3), (40,)], strict=False)
    )
    bias, weight = jax.random.normal(keys[2], (40,)), jax.random.normal(keys[3], (2, 3, 40))
    features = features.astype(dtype).astype(jnp.float32)

    def ours(features: jax.Array, table: jax.Array, bias: jax.Array) -> jax.Array:
        logits = LMHeadOutput(features.astype(dtype), bias).logits(table)
        assert logits.dtype == jnp.float32
        return jnp.sum(jax.nn.log_softmax(logits) * weight)

    def expected(features: jax.Array, table: jax.Array, bias: jax.Array) -> jax.Array:
        return jnp.sum(jax.nn.log_softmax(features @ table.T + bias) * weight)

    gradients = [jax.grad(f, (0, 1, 2))(features, table, bias) for f in (ours, expected)]
    tolerance = 1e-5 if dtype == jnp.float32 else 2**-6
    for a, b in zip(*gradients, strict=True):
        assert np.linalg.norm(a - b) < tolerance * np.linalg.norm(b)


def equations(jaxpr: Any) -> Iterator[Any]:
    """All equations of a program, also those of the programs in it."""
    for equation in jaxpr.eqns:
        yield equation
        for value in equation.params.values():
            for part in value if isinstance(value, tuple | list) else (value,):
                inner = getattr(part, "jaxpr", part)
                if hasattr(inner, "eqns"):
                    yield from equations(inner)


@pytest.mark.parametrize("family", ["bert", "electra"])
def test_no_gradient_is_summed_over_tokens_in_sixteen_bits(family: str) -> None:
    """Such as that of a bias: GPUs from Hopper on would add up hundreds of thousands of numbers."""
    config = replace(tiny_configs.FAMILIES[family], run=dict(dtype="bfloat16"))
    objective = tiny_configs.build(config)

    def loss(params: Any) -> jax.Array:
        batch = objective.corrupt(tiny_configs.batch(4), jax.random.key(0))
        terms = objective.terms(params, batch, jax.random.key(1))
        return total_loss(objective.weights, terms, objective.counts(batch))

    params = jax.eval_shape(objective.init, jax.random.key(0))
    sums = [e for e in equations(jax.make_jaxpr(jax.grad(loss))(params).jaxpr)
            if e.primitive.name == "reduce_sum"]  # fmt: skip
    assert sums
    assert not [e for e in sums if e.invars[0].aval.dtype == jnp.bfloat16]


def test_a_bias_has_the_value_and_the_gradient_of_its_formula() -> None:
    keys = jax.random.split(jax.random.key(0), 3)
    y, weight = (jax.random.normal(key, (3, 4, 5)) for key in keys[:2])
    bias = jax.random.normal(keys[2], (5,))
    ours, expected = (
        jax.value_and_grad(lambda y, bias, f=f: jnp.sum(f(y, bias) * weight), (0, 1))(y, bias)
        for f in (add_bias, jnp.add)
    )
    jax.tree.map(np.testing.assert_array_equal, ours, expected)
