"""Attention in blocks: equal to plain attention, dropout included, with memory that grows with the
length."""

from __future__ import annotations

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from bert_jax import config
from bert_jax.config import MODERNBERT, replace
from bert_jax.distributed import constraints, sharding
from bert_jax.distributed.constraints import RandomWords, random_words, row_numbers
from bert_jax.model import Network
from bert_jax.model.attention import attention, blocked, xla
from bert_jax.model.block import Block
from tests.helpers import tiny_configs
from tests.model.test_attention import KEY, close, draw, results, segment_mask

SHAPE = (3, 2, 9, 5)  # rows, heads, queries, words


@pytest.mark.parametrize(
    ("length", "window", "packed", "rate"),
    [
        (257, None, True, 0.3),  # neither a multiple of the block of 128, nor of a word
        (257, 17, False, 0.3),  # the window is less than the block of 64
        (300, 70, True, 0.3),  # no divisor of the block of 96
        (300, 70, False, 0.0),
        (50, 17, True, 0.3),  # a row shorter than one block
    ],
)
def test_blocks_equal_plain_attention_and_drop_what_it_drops(
    length: int, window: int | None, packed: bool, rate: float
) -> None:
    x, mask = draw(2, 2, length, 8), segment_mask(packed, length=length)
    args = rate, KEY if rate else None, window
    close(results(blocked.attend, x, mask, *args), results(xla.attend, x, mask, *args), 2e-6)


def test_a_scan_over_local_and_global_layers_has_their_gradients() -> None:
    """`is_global` is traced there, and a layer's dropout does not depend on it."""
    x, mask = draw(1, 1, 260, 8), segment_mask(True, b=1, length=260)

    def loss(backend: str, *qkv: jax.Array) -> jax.Array:
        def layer(q: jax.Array, is_global: jax.Array) -> tuple[jax.Array, None]:
            return attention(q, *qkv[1:], mask, 0.3, KEY, 40, backend, is_global), None

        out = jax.lax.scan(layer, qkv[0], jnp.array([True, False]))[0]
        return (jnp.where((mask.segments > 0)[:, None, :, None], out, 0) * x[3]).sum()

    a, b = (
        jax.jit(jax.grad(loss, (1, 2, 3)), static_argnums=0)(n, *x[:3]) for n in ("blocked", "xla")
    )
    close(a, b, 2e-6)


@pytest.mark.slow
def test_a_modernbert_with_long_rows_takes_blocks_and_stays_the_same() -> None:
    encoder = replace(tiny_configs.LATER["modernbert"].encoder, max_length=300)
    batch = {"tokens": jax.random.randint(KEY, (2, 300), 4, tiny_configs.V)}
    batch |= {"size": jnp.array([300, 270]), "first": jnp.array([300, 270])}
    networks = [Network(encoder, attention=a) for a in ("auto", "xla")]
    params = jax.jit(networks[0].init)(KEY, batch)["params"]
    run = lambda n: n.apply({"params": params}, batch, rngs={"dropout": KEY})["hidden"]  # noqa: E731
    auto, plain = (jax.jit(lambda n=n: run(n))() for n in networks)
    real = (jnp.arange(300) < batch["size"][:, None])[..., None]
    assert not jnp.array_equal(auto, plain)  # sums in another order
    close(jnp.where(real, auto, 0), jnp.where(real, plain, 0), 1e-5)


def test_memory_of_local_layers_grows_with_the_length_and_no_array_with_its_square() -> None:
    """Forward and backward, by the compiler's account. At the size of a model:
    benchmarks/long_rows.py."""
    sizes, layers = [], dict(layers=4, groups=1, first_norm=True)  # one body, four times
    encoder = replace(
        MODERNBERT.encoder, hidden_size=64, heads=2, mlp_size=96, attention_dropout=0.1, **layers
    )
    for length in (512, 1024):
        args = segment_mask(True, b=1, length=length), None, None, None
        block, x = Block(encoder, backend="blocked"), jnp.zeros((1, length, 64))
        params = jax.eval_shape(block.init, KEY, x, *args)["params"]

        def loss(params: Any, x: jax.Array, args: Any = args, block: Any = block) -> jax.Array:
            return (block.apply({"params": params}, x, *args, rngs={"dropout": KEY})[0] ** 2).sum()

        program = jax.jit(jax.grad(loss)).lower(params, x).compile()
        sizes.append(program.memory_analysis().temp_size_in_bytes)  # type: ignore[union-attr]
        for shape in set(re.findall(r"\[([\d,]+)\]", program.as_text() or "")):
            assert sum(int(n) >= length for n in shape.split(",")) < 2, shape
    assert sizes[1] <= 2.3 * sizes[0]


@pytest.mark.parametrize("numbers", [None, [7, 0, 5]])
def test_a_part_of_the_random_words_is_what_the_whole_has_there(numbers: list[int] | None) -> None:
    with row_numbers(None if numbers is None else jnp.array(numbers)):
        whole, words = random_words(KEY, SHAPE), RandomWords.of(KEY, SHAPE)
    i, j = jnp.array([[8], [2]]), jnp.array([1, 4, 0])
    np.testing.assert_array_equal(words.at(i, j), whole[:, :, i, j])


def test_devices_have_their_rows_words() -> None:
    mesh = sharding.make_mesh(config.Mesh(4), jax.devices()[:4])
    everywhere = random_words(KEY, (8, *SHAPE[1:]))

    def local(_: Any, expected: jax.Array, __: Any) -> jax.Array:
        words = RandomWords.of(KEY, expected.shape)  # type: ignore[arg-type]
        equal = words.at(jnp.arange(9)[:, None], jnp.arange(5)) == expected
        return constraints.psum_batch(equal.sum())

    run = sharding.with_mesh(mesh, lambda x: constraints.data_parallel(local)(0, x, 0))
    rows = jax.device_put(everywhere, jax.NamedSharding(mesh, P("data")))
    assert jax.jit(run)(rows) == everywhere.size


def test_words_are_counted_in_64_bits() -> None:
    """Rows of 8,192 tokens in a batch of thousands have more words than 32 bits count."""
    data = jax.random.key_data(KEY)
    one = lambda n: jnp.full((1, 1), n, jnp.uint32)  # noqa: E731
    near_end = RandomWords(data, one(0), one(2**32 - 2), 4).at(jnp.array(0), jnp.arange(4))
    after = RandomWords(data, one(1), one(0), 4).at(jnp.array(0), jnp.arange(2))
    np.testing.assert_array_equal(near_end[..., 2:], after)
