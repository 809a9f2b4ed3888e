"""Encoder options newer than the five papers: each equals its formula, and together they keep the
properties of the encoder."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax import convert
from bert_jax.config import ELECTRA, Encoder, replace
from bert_jax.convert.export import export_network
from bert_jax.model import AttentionMask, Network
from bert_jax.model.block import Attention, Mlp
from bert_jax.model.encoder import global_layers
from bert_jax.model.heads import MlmHead, PairHead, Pooler, RtdHead
from bert_jax.model.layers import apply_rotary, layer_norm, rotary_cos_sin
from bert_jax.training import warm_start
from bert_jax.utils import pytree
from tests.helpers import modern_options, tiny_configs

SIZES = dict(layers=4, hidden_size=24, heads=3, vocab_size=50, max_length=32, mlp_size=20)
TINY = Encoder(**SIZES, **modern_options.OPTIONS, initializer_range=0.3)  # type: ignore[arg-type]
SIZE = (12, 7, 10)


def padded(seed: int = 0) -> dict[str, jax.Array]:
    tokens = np.random.default_rng(seed).integers(1, 50, (len(SIZE), 12))
    size = np.array(SIZE)
    tokens = np.where(np.arange(12) < size[:, None], tokens, 0)
    return {
        k: jnp.asarray(v, jnp.int32) for k, v in dict(tokens=tokens, size=size, first=size).items()
    }


def packed() -> dict[str, jax.Array]:
    """The same three sequences in two rows of 20: the first two together, the third alone."""
    one = padded()
    rows = {k: np.zeros((2, 20), np.int32) for k in ("tokens", "segments", "positions", "types")}
    for i, (row, begin, n) in enumerate(PLACES):
        rows["tokens"][row, begin : begin + n] = one["tokens"][i, :n]
        rows["segments"][row, begin : begin + n] = 1 + (begin > 0)
        rows["positions"][row, begin : begin + n] = range(n)
    return {k: jnp.asarray(v) for k, v in rows.items()}


PLACES = [(0, 0, 12), (0, 12, 7), (1, 0, 10)]  # row, begin, size


def init(config: Encoder, heads: Any = None, **how: Any) -> tuple[Network, Any]:
    network = Network(config, heads or {}, **how)
    batch = padded() | {"masked": jnp.zeros((3, 2), jnp.int32)}
    return network, jax.jit(network.init)(jax.random.key(0), batch)["params"]


def hidden(network: Network, params: Any, batch: Any) -> Any:
    return jax.jit(network.apply)({"params": params}, batch)["hidden"]  # type: ignore[index]


def close(a: Any, b: Any, tolerance: float) -> None:
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert np.abs(x - y).max() <= tolerance * max(float(np.abs(y).max()), 1e-6)


# ---- each option equals its formula


def test_rms_norm_subtracts_no_mean() -> None:
    x = np.random.default_rng(0).normal(3.0, 2.0, (2, 5, 24))
    scale = np.linspace(0.5, 2.0, 24)
    norm = layer_norm(replace(TINY, layer_norm_eps=1e-5), jnp.float32)
    actual = norm.apply({"params": {"scale": jnp.float32(scale)}}, jnp.float32(x))
    np.testing.assert_allclose(
        actual, x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-5) * scale, rtol=2e-6
    )


def test_rotary_positions_rotate_pairs_as_complex_numbers() -> None:
    at = np.array([[0, 1, 2, 0, 1, 30]])
    x = np.random.default_rng(0).normal(size=(1, 3, 6, 8))
    rotary = rotary_cos_sin(TINY, jnp.asarray(at, jnp.int32))
    assert rotary is not None
    angles = at[:, None, :, None] * 10_000.0 ** (-np.arange(4) / 4)
    z = (x[..., :4] + 1j * x[..., 4:]) * np.exp(1j * angles)
    actual = apply_rotary(jnp.float32(x), rotary.in_global)
    np.testing.assert_allclose(actual, np.concatenate([z.real, z.imag], -1), atol=1e-5)


def test_rotary_attention_depends_on_distances_only() -> None:
    """Shifting all positions by 7 does not change the outputs."""
    x = jax.random.normal(jax.random.key(1), (2, 12, 24))
    part, mask = Attention(TINY), AttentionMask.from_sizes(jnp.array([12, 9]), 12)
    at = jnp.broadcast_to(jnp.arange(12), (2, 12))
    params = part.init(jax.random.key(0), x, mask, rotary_cos_sin(TINY, at))
    near, shifted = (part.apply(params, x, mask, rotary_cos_sin(TINY, at + n)) for n in (0, 7))
    close(shifted, near, 1e-5)
    assert np.abs(near - part.apply(params, x, mask, rotary_cos_sin(TINY, 2 * at))).max() > 1e-3


def test_a_gated_mlp_equals_its_formula() -> None:
    x = np.random.default_rng(0).normal(size=(2, 3, 24))
    part = Mlp(replace(TINY, layer_norm_eps=1e-5))
    params = part.init(jax.random.key(0), jnp.float32(x))
    p = jax.tree.map(lambda a: np.float64(a) * 10, params["params"])
    h = x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-5) * p["norm"]["scale"]
    gate = h @ p["gate"]["kernel"]
    out = x + (gate / (1 + np.exp(-gate)) * (h @ p["up"]["kernel"])) @ p["down"]["kernel"]
    actual = part.apply({"params": jax.tree.map(jnp.float32, p)}, jnp.float32(x))
    np.testing.assert_allclose(actual, out, rtol=1e-5, atol=1e-5)


def test_a_local_layer_attends_within_its_window_and_a_global_one_to_all() -> None:
    """By gradients: the inputs that an output depends on."""
    part, mask = (
        Attention(replace(TINY, positions="learned")),
        AttentionMask.from_sizes(jnp.array([12]), 12),
    )
    x = jax.random.normal(jax.random.key(1), (1, 12, 24))
    params = part.init(jax.random.key(0), x, mask)

    def depends(is_global: bool) -> np.ndarray:
        f = lambda x: part.apply(params, x, mask, None, jnp.asarray(is_global))[0].sum(-1)  # type: ignore[index]  # noqa: E731
        return np.abs(jax.jit(jax.jacobian(f))(x)[:, 0]).max(-1) > 0

    i = np.arange(12)
    assert (depends(False) == (np.abs(i[:, None] - i) <= 4)).all()
    assert depends(True).all()


def test_every_third_layer_from_the_first_is_global() -> None:
    assert global_layers(Encoder()) is None
    albert = global_layers(replace(TINY, layers=8, groups=2))
    assert albert is not None
    assert albert.tolist() == [[True, False, False, True], [False, False, True, False]]
    every, none = replace(TINY, global_every=1), replace(TINY, window=None)
    params = init(none)[1]
    close(*(hidden(Network(c), params, padded()) for c in (every, none)), 0.0)


def test_without_biases_only_logits_have_a_bias() -> None:
    heads = {"mlm": MlmHead, "pooler": Pooler, "pair": PairHead, "rtd": RtdHead}
    for norm in ("layer", "rms"):
        names = pytree.flatten_with_names(init(replace(TINY, norm=norm), heads)[1])
        biases = [n for n in names if n.endswith("bias")]
        assert biases == ["mlm/bias", "pair/dense/bias", "rtd/out/bias"]
        assert "encoder/norm/scale" in names
        assert "embeddings/position" not in names


def test_layers_that_add_nothing_return_the_norm_of_the_embeddings() -> None:
    network, params = init(TINY, return_layers=True)
    zero = lambda n, x: jnp.zeros_like(x) if re.search("(out|down)/kernel", n) else x  # noqa: E731
    params = pytree.map_with_names(zero, params)
    out: Any = jax.jit(network.apply)({"params": params}, padded())
    norm = layer_norm(TINY, jnp.float32)
    first = norm.apply({"params": params["encoder"]["norm"]}, out["layers"][0])
    close(out["hidden"], first, 1e-6)
    close(out["layers"][-1], out["hidden"], 0.0)
    close(out["layers"][2], out["layers"][0], 0.0)


# ---- together they keep the properties of the encoder


@pytest.mark.slow_unless("flash")
@pytest.mark.parametrize("backend", ["xla", "flash", "splash"])
def test_packed_sequences_equal_unpacked_ones(backend: str) -> None:
    """Outputs and gradients of all parameters, with rotary positions and windows."""
    params = init(TINY)[1]
    weights = jax.random.normal(jax.random.key(1), (3, 12, 24))

    def outputs_and_gradients(batch: Any, network: Network, cut: Any) -> Any:
        def f(params: Any) -> Any:
            h = cut(network.apply({"params": params}, batch)["hidden"])  # type: ignore[index]
            return sum((x * w[: len(x)]).sum() for x, w in zip(h, weights, strict=True)), h

        (_, h), grads = jax.jit(jax.value_and_grad(f, has_aux=True))(params)
        return h, grads

    alone = outputs_and_gradients(
        padded(), Network(TINY), lambda h: [h[i, :n] for i, n in enumerate(SIZE)]
    )
    network = Network(TINY, attention=backend)
    together = outputs_and_gradients(
        packed(), network, lambda h: [h[r, i : i + n] for r, i, n in PLACES]
    )
    close(together, alone, 1e-5)


@pytest.mark.parametrize(("groups", "share"), [(1, "all"), (2, "all"), (2, "attention")])
def test_shared_layers_equal_repeated_layers_with_windows(groups: int, share: str) -> None:
    network, shared = init(replace(TINY, groups=groups, share_params=share))
    layers = dict(shared["encoder"]["layers"])
    own = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), layers.pop("own", {}))
    equal = jax.tree.map(lambda x: jnp.repeat(x, 4 // groups, 0), layers)
    equal |= {"mlp": own} if own else {}
    whole = {**shared, "encoder": {**shared["encoder"], "layers": equal}}
    close(hidden(network, shared, padded()), hidden(Network(TINY), whole, padded()), 1e-6)


def test_padding_tokens_do_not_change_the_output() -> None:
    network, params = init(TINY)
    one, real = padded(), jnp.arange(12) < jnp.array(SIZE)[:, None]
    other = one | {"tokens": jnp.where(real, one["tokens"], 7)}
    a, b = (jnp.where(real[..., None], hidden(network, params, x), 0) for x in (one, other))
    assert jnp.array_equal(a, b)


def test_bfloat16_is_close_to_float32() -> None:
    network, params = init(TINY)
    half = hidden(Network(TINY, dtype=jnp.bfloat16), params, padded())
    assert half.dtype == jnp.bfloat16
    assert np.abs(half.astype(jnp.float32) - hidden(network, params, padded())).max() < 0.1


# ---- generators, configs and export


def test_a_generator_inherits_all_options() -> None:
    generator = ELECTRA.objective.generator(replace(ELECTRA.encoder, **modern_options.OPTIONS))  # type: ignore[union-attr]
    assert {k: getattr(generator, k) for k in modern_options.OPTIONS} == modern_options.OPTIONS


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(window=0), "encoder.window is 0: expected 1 to"),
        (dict(global_every=0), "encoder.global_every is 0: expected 1 to"),
        (dict(rotary_theta=1.0), "encoder.rotary_theta is 1.0: expected above 1"),
        (dict(positions="rotary", hidden_size=21, heads=3), "heads are 7 wide"),
    ],
)
def test_invalid_options_are_rejected(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(Encoder(), **change)


@pytest.mark.parametrize(
    "change",
    [
        dict(pre_norm=True),
        dict(norm="rms"),
        dict(positions="rotary"),
        dict(gated_mlp=True),
        dict(biases=False),
        dict(window=4),
    ],
    ids=str,
)
def test_exporting_an_option_that_hugging_face_lacks_is_rejected(change: dict) -> None:
    config = replace(tiny_configs.FAMILIES["bert"], encoder=change)
    params = tiny_configs.initial_params(config)
    with pytest.raises(ValueError, match=f"encoder.{next(iter(change))} is .*stablehlo or orbax"):
        convert.to_hf(config, params)
    assert warm_start.model_family(config) == "bert"  # whose heads it is fine-tuned with


def test_stablehlo_export_supports_all_options() -> None:
    network, params = init(TINY)
    flat = pytree.flatten_with_names(params)
    one = padded()
    mask = (jnp.arange(12) < one["size"][:, None]).astype(jnp.int32)
    exported = export_network(TINY, {}, {k: np.asarray(v) for k, v in flat.items()})
    out = exported.call(flat, one["tokens"], mask, jnp.zeros_like(mask))["hidden"]
    real = np.asarray(mask, bool)
    close(out[real], hidden(network, params, one)[real], 1e-5)


def test_max_length_of_rotary_positions_can_be_raised() -> None:
    config = modern_options.tiny_config()
    params = tiny_configs.initial_params(config)
    longer, same = convert.resize_position_embeddings(config, params, 100)
    assert longer.encoder.max_length == 100
    close(same, params, 0.0)
