"""cuDNN's attention on NVIDIA GPUs. Without one, a fake is used that is correct where cuDNN's
results are defined, and NaN where they are not."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax.model.attention import AttentionMask, attention, cudnn, xla
from tests.model.test_attention import B, H, K, L, close, draw, results, segment_mask

GPU = pytest.mark.skipif(jax.default_backend() != "gpu", reason="needs a GPU")
each_mask = pytest.mark.parametrize(
    ("packed", "window"), [(p, w) for p in (False, True) for w in (None, 5)]
)


def rows(packed: bool, length: int) -> AttentionMask:
    """A full row, two with padding, an empty one; packed: three texts in each."""
    sizes, at = np.array([[length], [length - 9], [length // 3], [0]]), np.arange(length)
    texts = 1 + 3 * at // length if packed else 1
    return AttentionMask(jnp.asarray(texts * (at < sizes), jnp.int32), packed)


# ---- a fake cuDNN


def attend_bshk(q: Any, k: Any, v: Any, bias: Any, sizes: Any) -> tuple[jax.Array, jax.Array]:
    """The output [b l h k], and each query's log-sum-exp [b l h]. A row without keys is NaN."""
    scores = jnp.einsum("blhk,bshk->bhls", q, k) * q.shape[-1] ** -0.5 + bias
    is_padding = jnp.arange(k.shape[1]) >= sizes[:, None, None, None]
    scores = jnp.where(is_padding, -jnp.inf, scores)
    out = jnp.einsum("bhls,bshk->blhk", jax.nn.softmax(scores), v)
    return out, jax.nn.logsumexp(scores, axis=-1).swapaxes(1, 2)


@jax.custom_vjp
def fake_cudnn(*args: Any) -> jax.Array:
    return attend_bshk(*args)[0]


def fake_cudnn_bwd(residuals: Any, d_out: jax.Array) -> tuple[Any, ...]:
    """NaN in memory after the end of a row, which cuDNN does not write, and for queries without
    keys at the lengths where Hopper's kernel returns NaN (openxla/xla#44867,
    pytorch/pytorch#196678)."""
    *qkv, bias, sizes = residuals
    _, pull, sums = jax.vjp(lambda *qkv: attend_bshk(*qkv, bias, sizes), *qkv, has_aux=True)
    dq, dk, dv = pull(d_out)
    length = dq.shape[1]
    no_keys = (sums < -88.7) & (length % 128 == 64)
    is_written = (jnp.arange(length) < sizes[:, None])[..., None, None]
    dq = jnp.where(no_keys[..., None], jnp.nan, dq)
    return dq, *(jnp.where(is_written, d, jnp.nan) for d in (dk, dv)), None, None


fake_cudnn.defvjp(lambda *args: (fake_cudnn(*args), args), fake_cudnn_bwd)


@pytest.fixture
def use_fake_cudnn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace cuDNN, for any dtype; a mask becomes the bias that jax makes of it."""

    def call(q: Any, k: Any, v: Any, mask: Any = None, **kwargs: Any) -> jax.Array:
        assert kwargs.pop("implementation") == "cudnn"
        sizes = kwargs.pop("key_value_seq_lengths", jnp.full(len(q), q.shape[1], jnp.int32))
        assert not kwargs
        bias = jnp.zeros(()) if mask is None else jnp.where(mask, 0.0, -(2.0**41))
        return fake_cudnn(q, k, v, bias, sizes)

    monkeypatch.setattr(jax.nn, "dot_product_attention", call)
    monkeypatch.setattr(cudnn, "unsupported_reason", lambda *_: None)


@each_mask
@pytest.mark.parametrize("length", [63, 64, 128, 192])
def test_projections_get_the_gradients_of_xla_attention(
    length: int, packed: bool, window: int | None, use_fake_cudnn: None
) -> None:
    """Through two layers; the gradients of projections are sums over all positions."""
    mask, width = rows(packed, length), H * K
    x, weight = draw(4, length, width, n=2)
    projections = jnp.stack(draw(width, width, n=3)) * width**-0.5

    def loss(projections: jax.Array, backend: str) -> jax.Array:
        out = x
        for _ in range(2):
            q, k, v = ((out @ p).reshape(4, length, H, K).swapaxes(1, 2) for p in projections)
            attended = attention(q, k, v, mask, window=window, backend=backend)
            out += attended.swapaxes(1, 2).reshape(x.shape)
        return jnp.sum(jnp.where((mask.segments > 0)[..., None], out * weight, 0)) / length

    gradients = jax.jit(jax.value_and_grad(loss), static_argnums=1)
    with jax.default_matmul_precision("highest"):
        close(gradients(projections, "cudnn"), gradients(projections, "xla"))


@each_mask
@pytest.mark.parametrize("length", [63, 64])
def test_a_padding_segment_changes_no_bit(length: int, packed: bool, window: int | None) -> None:
    (*qkv, weight), mask = draw(4, H, length, K), rows(packed, length)
    is_real = (mask.segments > 0)[:, None, :, None]

    @jax.jit  # the mask is an argument: as a constant it would change how XLA rounds
    def gradients(mask: AttentionMask) -> Any:
        def loss(*qkv: jax.Array) -> tuple[jax.Array, jax.Array]:
            out = jnp.where(is_real, xla.attend(*qkv, mask, window=window), 0)
            return jnp.sum(out * weight), out

        return jax.value_and_grad(loss, (0, 1, 2), has_aux=True)(*qkv)

    expected = gradients(mask)
    jax.tree.map(np.testing.assert_array_equal, gradients(mask.with_padding_segment()), expected)


@pytest.mark.parametrize("window", [None, 0, 5])
@pytest.mark.parametrize("packed", [False, True])
def test_with_a_padding_segment_every_token_attends_to_itself(
    packed: bool, window: int | None
) -> None:
    mask = rows(packed, L)
    visible = mask.with_padding_segment().to_bool(window)
    is_real = (mask.segments > 0)[..., None]
    assert jnp.diagonal(visible, axis1=1, axis2=2).all()
    assert (jnp.where(is_real, visible == mask.to_bool(window), True)).all()


# ---- the real call


@pytest.mark.skipif(jax.default_backend() == "gpu", reason="has a GPU")
def test_cudnn_is_rejected_without_a_gpu() -> None:
    *qkv, _ = draw(B, H, L, K, dtype="bfloat16")
    with pytest.raises(ValueError, match="needs an NVIDIA GPU, found"):
        cudnn.attend(*qkv, segment_mask(packed=False))


@pytest.mark.parametrize("window", [None, 17])
@pytest.mark.parametrize("packed", [False, True])
def test_cudnn_is_called_on_gpus(
    packed: bool, window: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the lowered code: padding is passed as lengths, everything else as a mask."""
    monkeypatch.setattr(cudnn, "platform", lambda: "gpu")
    module = "jax._src.cudnn.fused_attention_stablehlo.check_cudnn_version"
    monkeypatch.setattr(module, lambda: 91000)
    x = draw(B, H, L, K, dtype="bfloat16")

    def loss(*qkv: jax.Array) -> jax.Array:
        return jnp.sum(cudnn.attend(*qkv, segment_mask(packed), 0.0, None, window) * x[3])

    traced = jax.jit(jax.grad(loss, (0, 1, 2))).trace(*x[:3])
    text = traced.lower(lowering_platforms=("cuda",)).as_text()
    has_mask = packed or window is not None
    assert ("fmhaScaleBiasSoftmaxBackward" if has_mask else "fmhaSoftmaxBackward") in text
    assert ("PADDING" in text) != has_mask


@pytest.fixture
def nan_memory() -> None:
    """Fill GPU memory with NaN. Fresh memory is mostly zero, which would hide what cuDNN does not
    write."""
    x = jnp.full(2**28, jnp.nan)
    jax.block_until_ready(x)
    del x


@GPU
@pytest.mark.parametrize("length", [64, 128, 192])
@pytest.mark.parametrize("window", [None, 17])
@pytest.mark.parametrize("packed", [False, True])
def test_cudnn_equals_xla_attention_on_a_gpu(
    packed: bool, window: int | None, length: int, nan_memory: None
) -> None:
    x, mask = draw(B, H, length, 64, dtype="bfloat16"), segment_mask(packed, length=length)
    exact = results(xla.attend, [a.astype(jnp.float32) for a in x], mask, 0.0, None, window)
    half = results(cudnn.attend, x, mask, 0.0, None, window)
    for a, b in zip(jax.tree.leaves(half), jax.tree.leaves(exact), strict=True):
        assert jnp.linalg.norm(a.astype(jnp.float32) - b) / jnp.linalg.norm(b) < 2**-6


@GPU
@pytest.mark.parametrize("length", [64, 128, 192])
def test_no_segment_leaks_into_another_on_a_gpu(length: int, nan_memory: None) -> None:
    *qkv, weight = draw(B, H, length, 64, dtype="bfloat16")
    mask = segment_mask(packed=True, length=length)
    first = (mask.segments == 1)[:, None, :, None]
    loss = lambda *qkv: jnp.sum(jnp.where(first, cudnn.attend(*qkv, mask) * weight, 0))  # noqa: E731
    for g in jax.jit(jax.grad(loss, (0, 1, 2)))(*qkv):
        assert (jnp.where(first, 0, g) == 0).all()
