"""Properties of the encoder that follow from the mathematics."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax.config import Encoder, replace
from bert_jax.model import Network
from bert_jax.model.encoder import _rows_of_types
from bert_jax.model.heads import MlmHead, PairHead, Pooler, RtdHead, SboHead
from bert_jax.model.layers import dropout

SMALL = Encoder(layers=4, hidden_size=24, heads=3, vocab_size=50, max_length=16)
HEADS = {
    "mlm": MlmHead,
    "pooler": Pooler,
    "pair": PairHead,
    "sbo": partial(SboHead, num_offsets=5, offset_size=6),
    "rtd": RtdHead,
}


def batch(rows: int = 3, length: int = 11, seed: int = 0) -> dict[str, jax.Array]:
    rng = np.random.default_rng(seed)
    size = rng.integers(5, length, rows)
    slots = {k: rng.integers(0, 5, (rows, 2)) for k in ("masked", "left", "right", "offset")}
    fields = {"tokens": rng.integers(0, 50, (rows, length)), "size": size, "first": size // 2}
    return {k: jnp.asarray(v, jnp.int32) for k, v in {**fields, **slots}.items()}


def init(config: Encoder, heads: dict = HEADS, **kwargs: object) -> tuple[Network, dict]:
    network = Network(config, heads, **kwargs)  # type: ignore[arg-type]
    return network, jax.jit(network.init)(jax.random.key(0), batch())["params"]


def close(a: object, b: object, tolerance: float) -> None:
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert np.abs(x - y).max() <= tolerance * max(np.abs(y).max(), 1e-6)


@pytest.mark.parametrize("types", [1, 2, 4, 7])
def test_rows_of_token_types_are_looked_up(types: int) -> None:
    """Also where they are selected, and then no gradient is scattered."""
    rng = np.random.default_rng(0)
    table = jnp.float32(rng.normal(size=(types, 5)))
    of = jnp.asarray(rng.integers(0, types, (3, 8)))
    assert np.array_equal(_rows_of_types(table, of), table[of])
    weights = jnp.float32(rng.normal(size=(3, 8, 5)))
    gradient = jax.grad(lambda t: (_rows_of_types(t, of) * weights).sum())
    expected = jax.grad(lambda t: (t[of] * weights).sum())(table)
    assert np.allclose(gradient(table), expected, atol=1e-5)
    assert ("scatter" in str(jax.make_jaxpr(gradient)(table))) == (types > 4)


def test_padding_tokens_do_not_change_the_output() -> None:
    network, params = init(SMALL)
    one = batch()
    padding = jnp.arange(11) >= one["size"][:, None]
    other = {**one, "tokens": jnp.where(padding, 7, one["tokens"])}
    hidden = [jax.jit(network.apply)({"params": params}, b)["hidden"] for b in (one, other)]
    assert jnp.array_equal(*(jnp.where(padding[..., None], 0, h) for h in hidden))


def test_the_gradient_at_padding_is_exactly_zero() -> None:
    """For words that occur only there, and for positions after the end of every row."""
    network, params = init(SMALL, {})
    one = batch()
    padding = jnp.arange(11) >= one["size"][:, None]
    one["tokens"] = jnp.where(padding, 49, jnp.minimum(one["tokens"], 48))
    weights = jax.random.normal(jax.random.key(1), (3, 11, 24)) * ~padding[..., None]

    def f(p: dict) -> jax.Array:
        return (network.apply({"params": p}, one)["hidden"] * weights).sum()

    grads = jax.jit(jax.grad(f))(params)["embeddings"]
    assert not grads["word"][49].any()
    assert not grads["position"][one["size"].max() :].any()
    assert grads["word"][:49].any()


@pytest.mark.slow
def test_albert_equals_a_bert_with_equal_layers() -> None:
    albert, shared = init(replace(SMALL, groups=1))
    bert = Network(SMALL, HEADS)
    equal = dict(shared, encoder=jax.tree.map(lambda x: jnp.repeat(x, 4, 0), shared["encoder"]))
    f = lambda net, p: jax.jit(net.apply)({"params": p}, batch())["hidden"]  # noqa: E731
    close(f(albert, shared), f(bert, equal), 1e-6)
    weights = jax.random.normal(jax.random.key(1), (3, 11, 24))
    g, h = (
        jax.jit(jax.grad(lambda p, n=n: (f(n, p) * weights).sum()))(p)
        for n, p in ((albert, shared), (bert, equal))
    )
    summed = jax.tree.map(lambda x: x.sum(0, keepdims=True), h["encoder"]["layers"])
    key = lambda t: t["attention"]["key"].pop("bias")  # noqa: E731  its exact gradient is zero
    assert np.abs(key(g["encoder"]["layers"]) - key(summed)).max() < 1e-5
    close(g["encoder"]["layers"], summed, 1e-5)


@pytest.mark.parametrize("groups", [4, 2, 1])
def test_scanned_layers_equal_a_loop(groups: int) -> None:
    """A network of the first n layers returns the output of layer n."""
    config = replace(SMALL, groups=groups)
    network, params = init(config, {}, return_layers=True)
    layers = jax.jit(network.apply)({"params": params}, batch())["layers"]
    per_group = 4 // groups
    for n in range(per_group, 5, per_group):
        short = Network(replace(config, layers=n, groups=n // per_group))
        cut = dict(
            params,
            encoder={
                "layers": jax.tree.map(
                    lambda x, n=n: x[: n // per_group], params["encoder"]["layers"]
                )
            },
        )
        close(jax.jit(short.apply)({"params": cut}, batch())["hidden"], layers[n], 1e-6)


@pytest.mark.parametrize(("share", "own"), [("attention", "mlp"), ("mlp", "attention")])
def test_a_sublayer_that_is_not_shared_has_parameters_per_layer(share: str, own: str) -> None:
    config = replace(SMALL, groups=1, share_params=share)
    network, params = init(config, {})
    layers = params["encoder"]["layers"]
    assert set(layers) == {share, "own"}
    whole = {
        share: jax.tree.map(lambda x: jnp.repeat(x, 4, 0), layers[share]),
        own: jax.tree.map(lambda x: x[0], layers["own"]),
    }
    bert = dict(params, encoder={"layers": whole})
    expected = jax.jit(Network(SMALL).apply)({"params": bert}, batch())["hidden"]
    close(jax.jit(network.apply)({"params": params}, batch())["hidden"], expected, 1e-6)


def test_each_application_of_a_shared_layer_draws_its_own_dropout() -> None:
    """With the same dropout mask in every layer, repeating a layer would repeat its noise."""
    config = replace(SMALL, groups=1, dropout=0.5)
    network, params = init(config, {}, return_layers=True)
    zero = jax.tree.map(jnp.zeros_like, params["encoder"]["layers"])
    zero["mlp"]["down"]["bias"] += 1.0  # layers add the noise of one dropped constant
    zero["mlp"]["norm"]["scale"] += 1.0
    zero["attention"]["norm"]["scale"] += 1.0
    params = dict(params, encoder={"layers": zero})
    rngs = {"dropout": jax.random.key(2)}
    layers = jax.jit(network.apply)({"params": params}, batch(), rngs=rngs)["layers"]
    assert not np.allclose(layers[2] - layers[1], layers[3] - layers[2])


def test_dropout_has_its_rate_and_keeps_the_mean() -> None:
    x = jnp.ones((400, 250))
    y = dropout(x, 0.1, jax.random.key(0))
    dropped = float((y == 0).mean())
    assert abs(dropped - 26 / 256) < 4 * (0.1 * 0.9 / x.size) ** 0.5
    np.testing.assert_allclose(y[y != 0], 256 / 230, 1e-6)
    assert dropout(x, 0.1, None) is x


def test_bfloat16_is_close_to_float32_with_float32_parameters() -> None:
    network, params = init(SMALL)
    half = Network(SMALL, HEADS, jnp.bfloat16)
    assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(params))
    f, h = (jax.jit(n.apply)({"params": params}, batch())["hidden"] for n in (network, half))
    assert h.dtype == jnp.bfloat16
    assert np.abs(f - h.astype(jnp.float32)).max() < 0.05


@pytest.mark.slow
def test_initial_values_are_as_published() -> None:
    big = replace(SMALL, hidden_size=192, vocab_size=3000)
    cut = init(big, {})[1]["embeddings"]["word"]
    assert np.abs(cut).max() <= 0.04
    assert abs(float(cut.std()) / 0.02 - 0.88) < 0.01
    config = replace(
        big, init="normal", pad_id=1, zero_pad_row=True, projection_init="glorot", embedding_size=96
    )
    params = init(config)[1]
    word, bound = params["embeddings"]["word"], (6 / (96 + 192)) ** 0.5
    assert not word[1].any()
    assert abs(float(word.std()) / 0.02 - 1) < 0.01
    projection = params["encoder"]["projection"]["kernel"]
    assert bound * 0.99 < np.abs(projection).max() <= bound
