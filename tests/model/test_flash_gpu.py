"""Flash attention for NVIDIA GPUs, in Pallas' interpret mode; on a GPU, against plain attention."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractDevice, AbstractMesh, NamedSharding, use_abstract_mesh
from jax.sharding import PartitionSpec as P

from bert_jax import config
from bert_jax.distributed import sharding
from bert_jax.model.attention import AttentionMask, flash, flash_gpu, xla
from tests.model.test_attention import KEY, close, draw, results, segment_mask

B, H, L, K = 2, 2, 150, 16  # three blocks of 64, the last one not full
GPU = pytest.mark.skipif(jax.default_backend() != "gpu", reason="needs a GPU")
CPU = pytest.mark.skipif(jax.default_backend() == "gpu", reason="interprets the kernels")


@CPU
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("window", [None, 17])
def test_the_kernels_equal_xla_attention(packed: bool, window: int | None) -> None:
    x, mask = draw(B, H, L, K), segment_mask(packed, length=L)
    args = 0.0, None, window
    close(results(flash_gpu.attend, x, mask, *args), results(xla.attend, x, mask, *args))


@CPU
@pytest.mark.parametrize("packed", [False, True])
def test_dropout_is_that_of_the_tpu_kernel(packed: bool) -> None:
    """The same seed drops the same probabilities, so a run may move between TPU and GPU."""
    x, mask = draw(B, H, L, K), segment_mask(packed, length=L)
    args = 0.3, KEY
    close(results(flash_gpu.attend, x, mask, *args), results(flash.attend, x, mask, *args))


@CPU
@pytest.mark.parametrize("shape", [(4, 1, 1), (1, 2, 2)])
def test_any_mesh_gives_the_results_of_one_device(shape: tuple[int, int, int]) -> None:
    x, mask, args = draw(4, H, 64, K), segment_mask(True, b=4, length=64), (0.3, KEY)
    expected = results(flash_gpu.attend, x, mask, *args)
    mesh = sharding.make_mesh(config.Mesh(*shape), jax.devices()[:4])
    x, mask = jax.device_put((x, mask), NamedSharding(mesh, P(("data", "fsdp"))))
    meshed = sharding.with_mesh(mesh, lambda: results(flash_gpu.attend, x, mask, *args))()
    close(meshed, expected, 1e-6)


@CPU
def test_no_segment_leaks_into_another_and_an_empty_row_is_zero() -> None:
    q, k, v, weight = draw(3, H, L, K)
    segments = segment_mask(True, b=3, length=L).segments.at[2].set(0)
    mask = AttentionMask(segments, packed=True)

    def loss(*qkv: jax.Array) -> tuple[jax.Array, jax.Array]:
        out = flash_gpu.attend(*qkv, mask, 0.3, KEY)
        return jnp.sum(jnp.where((segments == 2)[:, None, :, None], out * weight, 0)), out

    gradients, out = jax.jit(jax.grad(loss, (0, 1, 2), has_aux=True))(q, k, v)
    assert (out[2] == 0).all()
    for gradient in gradients:
        assert (jnp.where((segments == 2)[:, None, :, None], 0, gradient) == 0).all()
        assert (gradient != 0).any()


@pytest.mark.parametrize(
    ("packed", "ranges"),
    [
        (False, [[0, 10], [0, 10], [0, 10], [0, 0]]),
        (True, [[0, 7], [2, 10], [7, 10], [0, 0]]),
    ],
)
def test_blocks_meet_only_those_that_they_may_see(packed: bool, ranges: list[list[int]]) -> None:
    row = np.array([1, 1, 2, 2, 2, 2, 2, 3, 3, 3, 0, 0, 0, 0, 0, 0], np.int32)
    segments = jnp.asarray(row if packed else np.minimum(row, 1))[None]
    assert flash_gpu.visible_range(segments, packed, 4)[0].tolist() == ranges


@CPU
@pytest.mark.parametrize("packed", [False, True])
def test_the_program_for_gpus_holds_no_array_of_scores(packed: bool) -> None:
    """Lowered for CUDA: three kernels, and nothing of 192 x 192."""
    x, mask = draw(B, H, 192, K, dtype="bfloat16"), segment_mask(packed, length=192)

    def loss(*qkv: jax.Array) -> jax.Array:
        return jnp.sum(flash_gpu.attend(*qkv, mask, 0.1, KEY, 17) * x[3])

    fields = {"device_kind": "NVIDIA H100", "num_cores": 132, "platform": "gpu"}
    known = AbstractDevice.__dataclass_fields__  # jax 0.10 has no platform
    device = AbstractDevice(**{k: v for k, v in fields.items() if k in known})
    with use_abstract_mesh(AbstractMesh((1,), ("data",), abstract_device=device)):
        traced = jax.jit(jax.grad(loss, (0, 1, 2))).trace(*x[:3])
        text = traced.lower(lowering_platforms=("cuda",)).as_text()
    assert text.count("xla.gpu.triton") == 3
    assert "192x192" not in text


def test_unsupported_heads_and_platforms_are_named() -> None:
    assert flash_gpu.unsupported_reason("gpu", 64) is None
    assert "found 48" in str(flash_gpu.unsupported_reason("gpu", 48))
    assert "found tpu" in str(flash_gpu.unsupported_reason("tpu", 64))


@GPU
@pytest.mark.parametrize("length", [64, 128, 192, 500])
@pytest.mark.parametrize("window", [None, 17])
@pytest.mark.parametrize("packed", [False, True])
def test_the_kernels_equal_xla_attention_on_a_gpu(
    packed: bool, window: int | None, length: int
) -> None:
    x, mask = draw(B, H, length, 64, dtype="bfloat16"), segment_mask(packed, length=length)
    exact = results(xla.attend, [a.astype(jnp.float32) for a in x], mask, 0.0, None, window)
    half = results(flash_gpu.attend, x, mask, 0.0, None, window)
    for a, b in zip(jax.tree.leaves(half), jax.tree.leaves(exact), strict=True):
        assert jnp.linalg.norm(a.astype(jnp.float32) - b) / jnp.linalg.norm(b) < 2**-6


@GPU
def test_dropout_on_a_gpu_is_that_of_the_interpreter() -> None:
    """A third of the probabilities, the same as on a CPU: with one-hot values the output shows
    them."""
    q, k, *_ = draw(1, 1, 64, 64)
    v, mask = jnp.eye(64)[None, None], AttentionMask(jnp.ones((1, 64), jnp.int32), packed=False)
    on_gpu = flash_gpu.attend(q, k, v, mask, 0.3, KEY)
    with jax.default_device(jax.devices("cpu")[0]):
        on_cpu = flash_gpu.attend(*jax.device_put((q, k, v, mask), jax.devices("cpu")[0]), 0.3, KEY)
    assert ((on_gpu == 0) == (on_cpu == 0)).all()
