"""cuDNN's attention on NVIDIA GPUs. Where there is none, a double plays it: right where cuDNN's
results are defined, and NaN where they are not."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax.model.attention import AttentionMask, attention, cudnn
from tests.model.test_attention import B, H, K, L, close, draw, results, sight

GPU = pytest.mark.skipif(jax.default_backend() != "gpu", reason="needs a GPU")
each_sight = pytest.mark.parametrize(
    ("packed", "window"), [(p, w) for p in (False, True) for w in (None, 5)]
)


def rows(packed: bool, length: int) -> AttentionMask:
    """A full row, two with padding, an empty one; packed: three texts in each."""
    sizes, at = np.array([[length], [length - 9], [length // 3], [0]]), np.arange(length)
    texts = 1 + 3 * at // length if packed else 1
    return AttentionMask(jnp.asarray(texts * (at < sizes), jnp.int32), packed)


# ---- a double


def scored(q: Any, k: Any, v: Any, bias: Any, sizes: Any) -> tuple[jax.Array, jax.Array]:
    """The result [b l h k], and each query's log-sum-exp [b l h]. A row of no keys is NaN."""
    scores = jnp.einsum("blhk,bshk->bhls", q, k) * q.shape[-1] ** -0.5 + bias
    behind = jnp.arange(k.shape[1]) >= sizes[:, None, None, None]
    scores = jnp.where(behind, -jnp.inf, scores)
    out = jnp.einsum("bhls,bshk->blhk", jax.nn.softmax(scores), v)
    return out, jax.nn.logsumexp(scores, axis=-1).swapaxes(1, 2)


@jax.custom_vjp
def played(*args: Any) -> jax.Array:
    return scored(*args)[0]


def played_backward(kept: Any, d_out: jax.Array) -> tuple[Any, ...]:
    """NaN: memory behind a row's end, which is not written, and what Hopper's kernel for such
    lengths makes of queries that see nothing (openxla/xla#44867, pytorch/pytorch#196678)."""
    *qkv, bias, sizes = kept
    _, pull, sums = jax.vjp(lambda *qkv: scored(*qkv, bias, sizes), *qkv, has_aux=True)
    dq, dk, dv = pull(d_out)
    length = dq.shape[1]
    blind = (sums < -88.7) & (length % 128 == 64)
    written = (jnp.arange(length) < sizes[:, None])[..., None, None]
    dq = jnp.where(blind[..., None], jnp.nan, dq)
    return dq, *(jnp.where(written, d, jnp.nan) for d in (dk, dv)), None, None


played.defvjp(lambda *args: (played(*args), args), played_backward)


@pytest.fixture
def double(monkeypatch: pytest.MonkeyPatch) -> None:
    """Instead of cuDNN, in any type; a mask is the bias that jax makes of it."""

    def call(q: Any, k: Any, v: Any, mask: Any = None, **named: Any) -> jax.Array:
        assert named.pop("implementation") == "cudnn"
        sizes = named.pop("key_value_seq_lengths", jnp.full(len(q), q.shape[1], jnp.int32))
        assert not named
        bias = jnp.zeros(()) if mask is None else jnp.where(mask, 0.0, -(2.0**41))
        return played(q, k, v, bias, sizes)

    monkeypatch.setattr(jax.nn, "dot_product_attention", call)
    monkeypatch.setattr(cudnn, "refusal", lambda *_: None)


@each_sight
@pytest.mark.parametrize("length", [63, 64, 128, 192])
def test_projections_learn_what_plain_attention_teaches(
    length: int, packed: bool, window: int | None, double: None
) -> None:
    """Through two layers, whose projections' gradients are sums over all places."""
    s, width = rows(packed, length), H * K
    x, weight = draw(4, length, width, n=2)
    projections = jnp.stack(draw(width, width, n=3)) * width**-0.5

    def loss(projections: jax.Array, backend: str) -> jax.Array:
        out = x
        for _ in range(2):
            q, k, v = ((out @ p).reshape(4, length, H, K).swapaxes(1, 2) for p in projections)
            seen = attention(q, k, v, s, window=window, backend=backend)
            out += seen.swapaxes(1, 2).reshape(x.shape)
        return jnp.sum(jnp.where((s.segments > 0)[..., None], out * weight, 0)) / length

    taught = jax.jit(jax.value_and_grad(loss), static_argnums=1)
    with jax.default_matmul_precision("highest"):
        close(taught(projections, "cudnn"), taught(projections, "xla"))


@each_sight
@pytest.mark.parametrize("length", [63, 64])
def test_padding_that_sees_padding_changes_no_bit(
    length: int, packed: bool, window: int | None
) -> None:
    (*qkv, weight), s = draw(4, H, length, K), rows(packed, length)
    real = (s.segments > 0)[:, None, :, None]

    @jax.jit  # as an argument: folded in as a constant, a sight changes how XLA rounds
    def taught(seen: AttentionMask) -> Any:
        def loss(*qkv: jax.Array) -> tuple[jax.Array, jax.Array]:
            out = jnp.where(real, xla.attend(*qkv, seen, window=window), 0)
            return jnp.sum(out * weight), out

        return jax.value_and_grad(loss, (0, 1, 2), has_aux=True)(*qkv)

    jax.tree.map(np.testing.assert_array_equal, taught(s.with_padding()), taught(s))


@pytest.mark.parametrize("window", [None, 0, 5])
@pytest.mark.parametrize("packed", [False, True])
def test_with_padding_every_place_sees_itself(packed: bool, window: int | None) -> None:
    s = rows(packed, L)
    seen, real = s.with_padding().mask(window), (s.segments > 0)[..., None]
    assert jnp.diagonal(seen, axis1=1, axis2=2).all()
    assert (jnp.where(real, seen == s.mask(window), True)).all()


# ---- as it is called


def test_cudnn_without_a_gpu_says_so() -> None:
    *qkv, _ = draw(B, H, L, K, dtype="bfloat16")
    if jax.default_backend() != "gpu":
        with pytest.raises(ValueError, match="needs an NVIDIA GPU, found"):
            cudnn.attend(*qkv, sight(packed=False))


@pytest.mark.parametrize("window", [None, 17])
@pytest.mark.parametrize("packed", [False, True])
def test_cudnn_is_called_on_gpus(
    packed: bool, window: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As far as that shows without one: padding goes in as lengths, all else as a mask."""
    monkeypatch.setattr(cudnn, "platform", lambda: "gpu")
    module = "jax._src.cudnn.fused_attention_stablehlo.check_cudnn_version"
    monkeypatch.setattr(module, lambda: 91000)
    x = draw(B, H, L, K, dtype="bfloat16")

    def loss(*qkv: jax.Array) -> jax.Array:
        return jnp.sum(cudnn.attend(*qkv, sight(packed), 0.0, None, window) * x[3])

    traced = jax.jit(jax.grad(loss, (0, 1, 2))).trace(*x[:3])
    text = traced.lower(lowering_platforms=("cuda",)).as_text()
    masked = packed or window is not None
    assert ("fmhaScaleBiasSoftmaxBackward" if masked else "fmhaSoftmaxBackward") in text
    assert ("PADDING" in text) != masked


@pytest.fixture
def spoiled() -> None:
    """Memory that nobody used yet is mostly zero: what cuDNN does not write must show."""
    x = jnp.full(2**28, jnp.nan)
    jax.block_until_ready(x)
    del x


@GPU
@pytest.mark.parametrize("length", [64, 128, 192])
@pytest.mark.parametrize("window", [None, 17])
@pytest.mark.parametrize("packed", [False, True])
def test_cudnn_equals_plain_attention_on_a_gpu(
    packed: bool, window: int | None, length: int, spoiled: None
) -> None:
    x, s = draw(B, H, length, 64, dtype="bfloat16"), sight(packed, length=length)
    exact = results(xla.attend, [a.astype(jnp.float32) for a in x], s, 0.0, None, window)
    ours = results(cudnn.attend, x, s, 0.0, None, window)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(exact), strict=True):
        assert jnp.linalg.norm(a.astype(jnp.float32) - b) / jnp.linalg.norm(b) < 2**-6


@GPU
@pytest.mark.parametrize("length", [64, 128, 192])
def test_cudnn_does_not_leak_on_a_gpu(length: int, spoiled: None) -> None:
    *qkv, weight = draw(B, H, length, 64, dtype="bfloat16")
    s = sight(packed=True, length=length)
    first = (s.segments == 1)[:, None, :, None]
    loss = lambda *qkv: jnp.sum(jnp.where(first, cudnn.attend(*qkv, s) * weight, 0))  # noqa: E731
    for g in jax.jit(jax.grad(loss, (0, 1, 2)))(*qkv):
        assert (jnp.where(first, 0, g) == 0).all()
