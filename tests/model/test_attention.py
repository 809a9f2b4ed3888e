"""All attention backends compute the same function. Kernels run in Pallas' interpret mode here."""

from collections.abc import Callable
from types import ModuleType

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from bert_jax import config, objectives
from bert_jax.distributed import sharding
from bert_jax.model.attention import (
    BACKENDS,
    AttentionMask,
    attention,
    choose_backend,
    cudnn,
    flash,
    splash,
    xla,
)
from tests.helpers import tiny_configs

B, H, L, K = 2, 2, 128, 16
KERNELS = ["flash", "splash"]
OTHERS = ["blocked", *KERNELS]  # than plain attention
KEY = jax.random.key(7)
pytestmark = pytest.mark.skipif(
    jax.default_backend() == "gpu", reason="kernels for TPUs refuse a GPU; see test_cudnn.py"
)


def draw(*shape: int, n: int = 4, dtype: str = "float32") -> list[jax.Array]:
    """q k v, and weights for a weighted sum of the outputs."""
    return [jax.random.normal(k, shape).astype(dtype) for k in jax.random.split(KEY, n)]


def segment_mask(packed: bool, b: int = B, length: int = L) -> AttentionMask:
    """Three segments and some padding in each row; one segment of the same size if not packed."""
    segments = np.zeros((b, length), np.int32)
    for row in range(b):
        ends = [0, length // 4 + 3 * row, length // 2 + 5, length - 7 * row - 7]
        for i in range(3):
            segments[row, ends[i] : ends[i + 1]] = i + 1 if packed else 1
    return AttentionMask(jnp.asarray(segments), packed)


def results(
    f: Callable[..., jax.Array], x: list[jax.Array], mask: AttentionMask, *args: object
) -> object:
    """The outputs at real tokens, and the gradients of their weighted sum."""
    *qkv, weight = x
    is_real = (mask.segments > 0)[:, None, :, None]

    def loss(*qkv: jax.Array) -> tuple[jax.Array, jax.Array]:
        out = jnp.where(is_real, f(*qkv, mask, *args), 0)
        return jnp.sum((out * weight).astype(jnp.float32)), out

    gradients, out = jax.jit(jax.grad(loss, (0, 1, 2), has_aux=True))(*qkv)
    return out, gradients


def close(a: object, b: object, tolerance: float = 1e-5) -> None:
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, tolerance, tolerance), a, b)


@pytest.mark.parametrize("window", [None, 0, 17])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("backend", OTHERS)
def test_every_backend_equals_xla_attention(backend: str, packed: bool, window: int | None) -> None:
    x, mask = draw(B, H, L, K), segment_mask(packed)
    args = 0.0, None, window
    close(results(BACKENDS[backend], x, mask, *args), results(xla.attend, x, mask, *args))


@pytest.mark.parametrize("is_global", [False, True])
@pytest.mark.parametrize("backend", ["xla", *OTHERS])
def test_a_traced_is_global_lifts_the_window(backend: str, is_global: bool) -> None:
    x, mask = draw(B, H, L, K), segment_mask(packed=True)

    def traced(*args: jax.Array) -> jax.Array:
        *qkv, is_global = args
        return attention(*qkv, mask, 0.0, None, 17, backend, is_global)

    out = jax.jit(traced)(*x[:3], jnp.asarray(is_global))
    is_real = (mask.segments > 0)[:, None, :, None]
    expected = xla.attend(*x[:3], mask, 0.0, None, None if is_global else 17)
    close(jnp.where(is_real, out, 0), jnp.where(is_real, expected, 0))


@pytest.mark.parametrize("backend", KERNELS)
def test_any_length_and_head_width_work(backend: str) -> None:
    x, mask = draw(B, 3, 150, 12), segment_mask(packed=True, length=150)
    close(results(BACKENDS[backend], x, mask), results(xla.attend, x, mask))


@pytest.mark.parametrize("backend", OTHERS)
def test_bfloat16_is_within_its_precision(backend: str) -> None:
    x, mask = draw(B, H, L, K, dtype="bfloat16"), segment_mask(packed=True)
    exact = results(xla.attend, [a.astype(jnp.float32) for a in x], mask)
    half = results(BACKENDS[backend], x, mask)
    assert {a.dtype for a in jax.tree.leaves(half)} == {jnp.dtype("bfloat16")}
    for a, b in zip(jax.tree.leaves(half), jax.tree.leaves(exact), strict=True):
        error = jnp.linalg.norm(a.astype(jnp.float32) - b) / jnp.linalg.norm(b)
        assert error < 2**-7


@pytest.mark.parametrize("rate", [0.0, 0.3])
@pytest.mark.parametrize("backend", ["xla", *OTHERS])
def test_no_segment_leaks_into_another(backend: str, rate: float) -> None:
    if backend == "splash" and rate:
        pytest.skip("splash has no dropout")
    q, k, v, weight = draw(B, H, L, K)
    mask = segment_mask(packed=True)

    def loss(segment: int, *qkv: jax.Array) -> jax.Array:
        out = attention(*qkv, mask, rate, KEY, None, backend)
        return jnp.sum(jnp.where((mask.segments == segment)[:, None, :, None], out * weight, 0))

    gradient = jax.jit(jax.grad(loss, (1, 2, 3)))
    for segment in (1, 2, 3):
        own = np.asarray(mask.segments == segment)
        for g in map(np.asarray, gradient(segment, q, k, v)):
            by_position = np.abs(g).sum((1, 3))
            assert (by_position[~own] == 0).all()
            assert (by_position[own] > 0).all()


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("backend", ["xla", *OTHERS])
def test_rows_of_padding_only_stay_finite(backend: str, packed: bool) -> None:
    *qkv, weight = draw(B, H, L, K)
    mask = AttentionMask(jnp.zeros((B, L), jnp.int32), packed)

    def loss(*qkv: jax.Array) -> jax.Array:
        return jnp.sum(BACKENDS[backend](*qkv, mask) * weight)

    loss_and_gradient = jax.jit(jax.value_and_grad(loss, (0, 1, 2)))(*qkv)
    assert all(np.isfinite(a).all() for a in jax.tree.leaves(loss_and_gradient))


def dropout_factors(b: int, h: int, rate: float, key: jax.Array = KEY) -> np.ndarray:
    """The factor by which dropout multiplies each probability, [b h l l]: with equal scores, and
    values that identify the keys."""
    q = jnp.zeros((b, h, L, L))
    v = jnp.broadcast_to(L * jnp.eye(L), q.shape)
    mask = AttentionMask(jnp.ones((b, L), jnp.int32), packed=True)
    return np.asarray(jax.jit(flash.attend, static_argnums=4)(q, q, v, mask, rate, key))


@pytest.mark.parametrize(("rate", "keep"), [(0.1, 230 / 256), (0.5, 0.5)])
def test_dropout_has_its_rate_and_keeps_the_mean(rate: float, keep: float) -> None:
    m = dropout_factors(B, H, rate)
    np.testing.assert_allclose(m[m > 0], 1 / keep, 1e-6)
    deviation = 5 * (keep * (1 - keep)) ** 0.5
    np.testing.assert_allclose((m > 0).mean((2, 3)), keep, atol=deviation / L)  # of L * L
    np.testing.assert_allclose((m > 0).mean(2), keep, atol=deviation / L**0.5)
    np.testing.assert_allclose((m > 0).mean(3), keep, atol=deviation / L**0.5)
    np.testing.assert_allclose(m.mean(), 1, atol=deviation / keep / (B * H * L * L) ** 0.5)


def test_dropout_is_a_function_of_its_key() -> None:
    first = dropout_factors(B, H, 0.5)
    assert (first == dropout_factors(B, H, 0.5)).all()
    rows, heads = np.roll(first, 1, 0), np.roll(first, 1, 1)
    for other in [dropout_factors(B, H, 0.5, jax.random.fold_in(KEY, 1)), rows, heads]:
        assert abs((first == other).mean((2, 3)) - 0.5).max() < 5 * 0.5 / L


@pytest.mark.parametrize("shift", [(0, 1), (1, 0), (1, 1), (8, 0), (16, 0), (32, 0), (0, 64)])
def test_dropout_is_independent_between_positions(shift: tuple[int, int]) -> None:
    m = dropout_factors(B, H, 0.5)
    same = (m == np.roll(m, shift, (2, 3))).mean((2, 3))
    assert abs(same - 0.5).max() < 5 * 0.5 / L


def test_the_gradient_uses_the_dropout_mask_of_the_output() -> None:
    x, mask, factors = draw(B, H, L, K), segment_mask(packed=True), dropout_factors(B, H, 0.3)

    def reference(q: jax.Array, k: jax.Array, v: jax.Array, mask: AttentionMask) -> jax.Array:
        scores = jnp.where(mask.to_bool()[:, None], q @ k.swapaxes(2, 3) * K**-0.5, -1e30)
        return (jax.nn.softmax(scores) * factors) @ v

    close(results(flash.attend, x, mask, 0.3, KEY), results(reference, x, mask))


def test_the_tile_shape_does_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    x, mask = draw(1, 4, 256, 64), segment_mask(packed=True, b=1, length=256)
    whole = results(flash.attend, x, mask, 0.3, KEY, 40)
    assert flash.tile_shape(256, 4, 64) == (256, 4)
    monkeypatch.setattr(flash, "MAX_SCORES", 128 * 256)
    assert flash.tile_shape(256, 4, 64) == (128, 2)
    close(results(flash.attend, x, mask, 0.3, KEY, 40), whole)


@pytest.mark.parametrize("heads", [4, 3])
@pytest.mark.parametrize("shape", [(2, 1, 2), (1, 4, 1)])
@pytest.mark.parametrize("backend", OTHERS)
def test_a_mesh_does_not_change_the_result(
    backend: str, shape: tuple[int, int, int], heads: int
) -> None:
    x, mask = draw(4, heads, L, K), segment_mask(packed=True, b=4)
    args = () if backend == "splash" else (0.3, KEY)
    expected = results(BACKENDS[backend], x, mask, *args)
    mesh = sharding.make_mesh(config.Mesh(*shape), jax.devices()[:4])
    x, mask = jax.device_put((x, mask), NamedSharding(mesh, P(("data", "fsdp"))))
    meshed = sharding.with_mesh(mesh, lambda: results(BACKENDS[backend], x, mask, *args))()
    close(meshed, expected, 1e-6)


def test_kernel_costs_are_those_of_the_matrix_products() -> None:
    """A product of [l, k] with [k, l] is 2 l l k operations: two forward, five backward."""
    q, k, *_ = draw(B, H, L, K)
    product = jax.jit(lambda q, k: q @ k.swapaxes(2, 3)).lower(q, k).compile().cost_analysis()
    forward, backward = (flash.kernel_cost(B, H, L, K, 4, backward=x) for x in (False, True))
    assert (forward.flops, backward.flops) == (2 * product["flops"], 5 * product["flops"])
    assert (forward.bytes, backward.bytes) == tuple(n * q.nbytes + 4 * B * L for n in (4, 7))


def test_the_backend_is_chosen_by_platform_and_shape() -> None:
    f32, bf16 = jnp.dtype("float32"), jnp.dtype("bfloat16")
    assert choose_backend("cpu", 128, 64, f32, 0.1) == "xla"
    assert choose_backend("tpu", 512, 64, bf16, 0.1) == "flash"
    assert choose_backend("tpu", 4096, 64, bf16, 0.0) == "splash"
    assert choose_backend("tpu", 4096, 64, f32, 0.1) == "blocked"
    assert choose_backend("tpu", 4096, 64, bf16, 0.1) == "xla"  # a bug of libtpu
    assert choose_backend("cpu", 1024, 64, f32, 0.1) == "xla"
    assert choose_backend("cpu", 1025, 64, f32, 0.1) == "blocked"
    assert choose_backend("cpu", 256, 64, f32, 0.1, window=64) == "xla"
    assert choose_backend("cpu", 257, 64, f32, 0.1, window=64) == "blocked"
    assert choose_backend("cpu", 512, 64, f32, 0.1, window=128) == "xla"
    assert choose_backend("gpu", 512, 64, bf16, 0.0) == "cudnn"
    assert choose_backend("gpu", 512, 64, bf16, 0.0, has_sizes=False) == "flash"
    assert choose_backend("gpu", 512, 64, bf16, 0.1) == "flash"
    for width in (26, 160):  # supported by no kernel, which is no error in a run
        assert choose_backend("gpu", 512, width, bf16, 0.0) == "xla"
        assert choose_backend("gpu", 512, width, bf16, 0.1) == "xla"
    assert choose_backend("gpu", 512, 64, f32, 0.0) == "xla"


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_model_is_initialized_on_platforms_without_its_backend(backend: str) -> None:
    """A model trained on a GPU can be loaded and inspected without one."""
    experiment = config.replace(tiny_configs.FAMILIES["bert"], run=dict(attention=backend))
    shapes = objectives.param_shapes(experiment)
    assert shapes.keys() == {"embeddings", "encoder", "mlm", "pair", "pooler"}


@pytest.mark.parametrize(
    ("backend", "shape", "dtype", "rate", "message"),
    [
        ("flash", (1, 1, 1152, 8), "bfloat16", 0.1, "up to 1024 tokens, found 1152"),
        ("splash", (1, 1, L, 8), "bfloat16", 0.1, "encoder.attention_dropout 0.1"),
        ("cudnn", (1, 1, L, 8), "bfloat16", 0.1, "encoder.attention_dropout 0.1"),
        ("cudnn", (1, 1, L, 8), "float32", 0.0, "takes bfloat16, found float32"),
        ("cudnn", (1, 1, L, 12), "bfloat16", 0.0, "found 12: change encoder.heads"),
    ],
)
def test_a_backend_rejects_what_it_does_not_support(
    backend: str,
    shape: tuple[int, ...],
    dtype: str,
    rate: float,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cudnn, "platform", lambda: "gpu")
    *qkv, _ = draw(*shape, dtype=dtype)
    with pytest.raises(ValueError, match=message):
        BACKENDS[backend](*qkv, AttentionMask(jnp.ones(shape[::2], jnp.int32), True), rate, KEY)


@pytest.mark.parametrize("kernel", [flash, splash])
@pytest.mark.parametrize("platform", ["gpu", "cuda"])
def test_tpu_kernels_are_rejected_on_a_gpu(
    platform: str, kernel: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernel, "platform", lambda: platform)
    name = kernel.__name__.rpartition(".")[2]
    message = f"attention {name} needs a TPU, found {platform}: choose run.attention auto"
    with pytest.raises(ValueError, match=message):
        attention(*draw(B, H, L, K, n=3), segment_mask(packed=True), backend=name)
