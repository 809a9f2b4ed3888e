"""All ways to compute attention are one function. Kernels run in Pallas' interpret mode here."""

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
    choice,
    cudnn,
    flash,
    splash,
    xla,
)
from tests.helpers import tiny_configs

B, H, L, K = 2, 2, 128, 16
KERNELS = ["flash", "splash"]
KEY = jax.random.key(7)
pytestmark = pytest.mark.skipif(
    jax.default_backend() == "gpu", reason="kernels for TPUs refuse a GPU; see test_cudnn.py"
)


def draw(*shape: int, n: int = 4, dtype: str = "float32") -> list[jax.Array]:
    """q k v, and what the outputs are weighted with."""
    return [jax.random.normal(k, shape).astype(dtype) for k in jax.random.split(KEY, n)]


def sight(packed: bool, b: int = B, length: int = L) -> AttentionMask:
    """Three segments and some padding in each row, or that many tokens in one piece."""
    segments = np.zeros((b, length), np.int32)
    for row in range(b):
        ends = [0, length // 4 + 3 * row, length // 2 + 5, length - 7 * row - 7]
        for i in range(3):
            segments[row, ends[i] : ends[i + 1]] = i + 1 if packed else 1
    return AttentionMask(jnp.asarray(segments), packed)


def results(
    f: Callable[..., jax.Array], x: list[jax.Array], s: AttentionMask, *args: object
) -> object:
    """The outputs at real places, and the gradients of a weighted sum of them."""
    *qkv, weight = x
    real = (s.segments > 0)[:, None, :, None]

    def loss(*qkv: jax.Array) -> tuple[jax.Array, jax.Array]:
        out = jnp.where(real, f(*qkv, s, *args), 0)
        return jnp.sum((out * weight).astype(jnp.float32)), out

    gradients, out = jax.jit(jax.grad(loss, (0, 1, 2), has_aux=True))(*qkv)
    return out, gradients


def close(a: object, b: object, tolerance: float = 1e-5) -> None:
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, tolerance, tolerance), a, b)


@pytest.mark.parametrize("window", [None, 0, 17])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("backend", KERNELS)
def test_every_backend_equals_plain_attention(
    backend: str, packed: bool, window: int | None
) -> None:
    x, s = draw(B, H, L, K), sight(packed)
    args = 0.0, None, window
    close(results(BACKENDS[backend], x, s, *args), results(xla.attend, x, s, *args))


@pytest.mark.parametrize("far", [False, True])
@pytest.mark.parametrize("backend", ["xla", *KERNELS])
def test_a_layer_may_learn_late_that_it_is_global(backend: str, far: bool) -> None:
    x, s = draw(B, H, L, K), sight(packed=True)

    def late(*args: jax.Array) -> jax.Array:
        *qkv, is_far = args
        return attention(*qkv, s, 0.0, None, 17, backend, is_far)

    ours = jax.jit(late)(*x[:3], jnp.asarray(far))
    real = (s.segments > 0)[:, None, :, None]
    theirs = xla.attend(*x[:3], s, 0.0, None, None if far else 17)
    close(jnp.where(real, ours, 0), jnp.where(real, theirs, 0))


@pytest.mark.parametrize("backend", KERNELS)
def test_any_length_and_width_will_do(backend: str) -> None:
    x, s = draw(B, 3, 150, 12), sight(packed=True, length=150)
    close(results(BACKENDS[backend], x, s), results(xla.attend, x, s))


@pytest.mark.parametrize("backend", KERNELS)
def test_bfloat16_is_as_close_as_its_digits_are(backend: str) -> None:
    x, s = draw(B, H, L, K, dtype="bfloat16"), sight(packed=True)
    exact = results(xla.attend, [a.astype(jnp.float32) for a in x], s)
    ours = results(BACKENDS[backend], x, s)
    assert {a.dtype for a in jax.tree.leaves(ours)} == {jnp.dtype("bfloat16")}
    for ours_, theirs in zip(jax.tree.leaves(ours), jax.tree.leaves(exact), strict=True):
        error = jnp.linalg.norm(ours_.astype(jnp.float32) - theirs) / jnp.linalg.norm(theirs)
        assert error < 2**-7


@pytest.mark.parametrize("rate", [0.0, 0.3])
@pytest.mark.parametrize("backend", ["xla", *KERNELS])
def test_no_segment_leaks_into_another(backend: str, rate: float) -> None:
    if backend == "splash" and rate:
        pytest.skip("splash has no dropout")
    q, k, v, weight = draw(B, H, L, K)
    s = sight(packed=True)

    def loss(segment: int, *qkv: jax.Array) -> jax.Array:
        out = attention(*qkv, s, rate, KEY, None, backend)
        return jnp.sum(jnp.where((s.segments == segment)[:, None, :, None], out * weight, 0))

    gradient = jax.jit(jax.grad(loss, (1, 2, 3)))
    for segment in (1, 2, 3):
        own = np.asarray(s.segments == segment)
        for g in map(np.asarray, gradient(segment, q, k, v)):
            by_place = np.abs(g).sum((1, 3))
            assert (by_place[~own] == 0).all()
            assert (by_place[own] > 0).all()


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("backend", ["xla", *KERNELS])
def test_rows_of_padding_alone_stay_finite(backend: str, packed: bool) -> None:
    *qkv, weight = draw(B, H, L, K)
    s = AttentionMask(jnp.zeros((B, L), jnp.int32), packed)

    def loss(*qkv: jax.Array) -> jax.Array:
        return jnp.sum(BACKENDS[backend](*qkv, s) * weight)

    loss_and_gradient = jax.jit(jax.value_and_grad(loss, (0, 1, 2)))(*qkv)
    assert all(np.isfinite(a).all() for a in jax.tree.leaves(loss_and_gradient))


def multiples(b: int, h: int, rate: float, key: jax.Array = KEY) -> np.ndarray:
    """What dropout multiplies each probability with, [b h l l]: equal scores, and values
    that tell the keys apart."""
    q = jnp.zeros((b, h, L, L))
    v = jnp.broadcast_to(L * jnp.eye(L), q.shape)
    s = AttentionMask(jnp.ones((b, L), jnp.int32), packed=True)
    return np.asarray(jax.jit(flash.attend, static_argnums=4)(q, q, v, s, rate, key))


@pytest.mark.parametrize(("rate", "kept"), [(0.1, 230 / 256), (0.5, 0.5)])
def test_dropout_keeps_its_share_and_the_mean(rate: float, kept: float) -> None:
    m = multiples(B, H, rate)
    np.testing.assert_allclose(m[m > 0], 1 / kept, 1e-6)
    deviation = 5 * (kept * (1 - kept)) ** 0.5
    np.testing.assert_allclose((m > 0).mean((2, 3)), kept, atol=deviation / L)  # of L * L
    np.testing.assert_allclose((m > 0).mean(2), kept, atol=deviation / L**0.5)
    np.testing.assert_allclose((m > 0).mean(3), kept, atol=deviation / L**0.5)
    np.testing.assert_allclose(m.mean(), 1, atol=deviation / kept / (B * H * L * L) ** 0.5)


def test_dropout_is_a_function_of_its_key() -> None:
    first = multiples(B, H, 0.5)
    assert (first == multiples(B, H, 0.5)).all()
    rows, heads = np.roll(first, 1, 0), np.roll(first, 1, 1)
    for other in [multiples(B, H, 0.5, jax.random.fold_in(KEY, 1)), rows, heads]:
        assert abs((first == other).mean((2, 3)) - 0.5).max() < 5 * 0.5 / L


@pytest.mark.parametrize("shift", [(0, 1), (1, 0), (1, 1), (8, 0), (16, 0), (32, 0), (0, 64)])
def test_dropout_at_one_place_says_nothing_of_another(shift: tuple[int, int]) -> None:
    m = multiples(B, H, 0.5)
    same = (m == np.roll(m, shift, (2, 3))).mean((2, 3))
    assert abs(same - 0.5).max() < 5 * 0.5 / L


def test_the_gradient_drops_what_the_output_dropped() -> None:
    x, s, m = draw(B, H, L, K), sight(packed=True), multiples(B, H, 0.3)

    def by_hand(q: jax.Array, k: jax.Array, v: jax.Array, s: AttentionMask) -> jax.Array:
        scores = jnp.where(s.mask()[:, None], q @ k.swapaxes(2, 3) * K**-0.5, -1e30)
        return (jax.nn.softmax(scores) * m) @ v

    close(results(flash.attend, x, s, 0.3, KEY), results(by_hand, x, s))


def test_tiles_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    x, s = draw(1, 4, 256, 64), sight(packed=True, b=1, length=256)
    whole = results(flash.attend, x, s, 0.3, KEY, 40)
    assert flash.tile(256, 4, 64) == (256, 4)
    monkeypatch.setattr(flash, "SCORES", 128 * 256)
    assert flash.tile(256, 4, 64) == (128, 2)
    close(results(flash.attend, x, s, 0.3, KEY, 40), whole)


@pytest.mark.parametrize("heads", [4, 3])
@pytest.mark.parametrize("shape", [(2, 1, 2), (1, 4, 1)])
@pytest.mark.parametrize("backend", KERNELS)
def test_a_mesh_changes_nothing(backend: str, shape: tuple[int, int, int], heads: int) -> None:
    x, s = draw(4, heads, L, K), sight(packed=True, b=4)
    args = (0.3, KEY) if backend == "flash" else ()
    alone = results(BACKENDS[backend], x, s, *args)
    mesh = sharding.make_mesh(config.Mesh(*shape), jax.devices()[:4])
    x, s = jax.device_put((x, s), NamedSharding(mesh, P(("data", "fsdp"))))
    close(sharding.with_mesh(mesh, lambda: results(BACKENDS[backend], x, s, *args))(), alone, 1e-6)


def test_costs_are_those_of_the_matrix_products() -> None:
    """A product of [l, k] with [k, l] is 2 l l k operations: two forward, five backward."""
    q, k, *_ = draw(B, H, L, K)
    product = jax.jit(lambda q, k: q @ k.swapaxes(2, 3)).lower(q, k).compile().cost_analysis()
    forward, backward = (flash.cost(B, H, L, K, 4, backward=x) for x in (False, True))
    assert (forward.flops, backward.flops) == (2 * product["flops"], 5 * product["flops"])
    assert (forward.bytes, backward.bytes) == tuple(n * q.nbytes + 4 * B * L for n in (4, 7))


def test_the_backend_follows_from_the_platform() -> None:
    f32, bf16 = jnp.dtype("float32"), jnp.dtype("bfloat16")
    assert choice("cpu", 128, 64, f32, 0.1) == "xla"
    assert choice("tpu", 512, 64, bf16, 0.1) == "flash"
    assert choice("tpu", 4096, 64, bf16, 0.0) == "splash"
    assert choice("tpu", 4096, 64, bf16, 0.1) == "xla"
    assert choice("gpu", 512, 64, bf16, 0.0) == "cudnn"
    for width in (26, 160):  # cuDNN's refusals, and not errors of a run
        assert choice("gpu", 512, width, bf16, 0.0) == "xla"
    assert choice("gpu", 512, 64, bf16, 0.1) == choice("gpu", 512, 64, f32, 0.0) == "xla"


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_model_has_a_shape_wherever_its_backend_runs(backend: str) -> None:
    """What was trained on a GPU is loaded and inspected without one."""
    asked = config.replace(tiny_configs.FAMILIES["bert"], run=dict(attention=backend))
    found = jax.eval_shape(objectives.build(asked).init, jax.random.key(0))
    assert found.keys() == {"embeddings", "encoder", "mlm", "pair", "pooler"}


@pytest.mark.parametrize(
    ("backend", "shape", "dtype", "rate", "says"),
    [
        ("flash", (1, 1, 1152, 8), "bfloat16", 0.1, "up to 1024 tokens, found 1152"),
        ("splash", (1, 1, L, 8), "bfloat16", 0.1, "encoder.attention_dropout 0.1"),
        ("cudnn", (1, 1, L, 8), "bfloat16", 0.1, "encoder.attention_dropout 0.1"),
        ("cudnn", (1, 1, L, 8), "float32", 0.0, "takes bfloat16, found float32"),
        ("cudnn", (1, 1, L, 12), "bfloat16", 0.0, "found 12: change encoder.heads"),
    ],
)
def test_a_backend_says_what_it_cannot_do(
    backend: str,
    shape: tuple[int, ...],
    dtype: str,
    rate: float,
    says: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cudnn, "platform", lambda: "gpu")
    *qkv, _ = draw(*shape, dtype=dtype)
    with pytest.raises(ValueError, match=says):
        BACKENDS[backend](*qkv, AttentionMask(jnp.ones(shape[::2], jnp.int32), True), rate, KEY)


@pytest.mark.parametrize("kernel", [flash, splash])
@pytest.mark.parametrize("platform", ["gpu", "cuda"])
def test_kernels_for_tpus_are_not_interpreted_on_a_gpu(
    platform: str, kernel: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernel, "platform", lambda: platform)
    name = kernel.__name__.rpartition(".")[2]
    says = f"attention {name} needs a TPU, found {platform}: choose run.attention auto"
    with pytest.raises(ValueError, match=says):
        attention(*draw(B, H, L, K, n=3), sight(packed=True), backend=name)
