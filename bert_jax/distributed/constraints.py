"""The axes of the mesh, and sharding constraints on the widest arrays of a step.

    data     splits rows           fsdp     splits rows, parameters and optimizer state
    tensor   splits the width of a layer, heads and the vocabulary; not rows

Steps are traced under their mesh (`sharding.with_mesh`); without a mesh `constrain` does nothing.
Without constraints XLA shards activations along `fsdp` like the kernels, and sums where it should
gather.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.random import threefry2x32_p
from jax.sharding import AbstractMesh
from jax.sharding import PartitionSpec as P

MESH_AXES = ("data", "fsdp", "tensor")
BATCH_AXES = ("data", "fsdp")

Axes = str | tuple[str, ...] | None
T = TypeVar("T")

GPUS = ("gpu", "cuda")  # what JAX calls one, and what it lowers for

_platform: ContextVar[str | None] = ContextVar("platform", default=None)
_row_numbers: ContextVar[Any] = ContextVar("row_numbers", default=None)
_first_row: ContextVar[Any] = ContextVar("first_row", default=None)


@contextlib.contextmanager
def mesh_context(mesh: jax.sharding.Mesh) -> Iterator[None]:
    """Tell `constrain` and `platform` the mesh while a function is traced. Its devices need not be
    present: a step can be compiled for a TPU on a machine without one."""
    token = _platform.set(mesh.devices.flat[0].platform)
    try:
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            yield
    finally:
        _platform.reset(token)


def platform() -> str:
    """Return cpu, gpu or tpu, where the function that is being traced will run."""
    return _platform.get() or jax.default_backend()


def constrain(x: jax.Array, *axes: Axes) -> jax.Array:
    """Constrain the dimensions of `x` to these mesh axes; skip an axis that does not divide."""
    mesh = jax.sharding.get_abstract_mesh()
    # No mesh, inside of a shard_map, or one device, where the operation would only cost copies.
    if set(mesh.auto_axes) != set(MESH_AXES) or mesh.size == 1:
        return x
    spec = [a if n % axis_size(mesh, a) == 0 else None for n, a in zip(x.shape, axes, strict=True)]
    return jax.lax.with_sharding_constraint(x, P(*spec))


# Named, because `random_words` and the keys of a batch's rows depend on how it makes bits.
PRNG = "threefry2x32"

# ---- data parallelism by shard_map


def data_parallel(f: Callable[[Any, Any, Any], T]) -> Callable[[Any, Any, Any], T]:
    """Run `f(params, batch, keys)` on each device's own rows if `data` is the only axis in use.

    `f` computes its device's share of sums over rows, and ends with `psum_batch`. Otherwise XLA
    all-reduces a gradient wherever a part of it arises: a tied table's at both uses, a shared
    layer's at every layer, all of them in every micro-batch. With `fsdp` or `tensor` XLA
    partitions the step: a shard_map over one axis of several compiles for CPUs, but fails a check
    of XLA's partitioner for TPUs (libtpu 0.0.52).
    """
    mesh = jax.sharding.get_abstract_mesh()
    if not mesh.shape or mesh.size == 1 or mesh.size != mesh.shape["data"]:
        return f
    return jax.shard_map(
        f,
        in_specs=(P(), P("data"), P()),
        out_specs=P(),
        check_vma=False,  # it would all-reduce each part of a gradient by itself, as XLA does
    )


def psum_batch(shares: T) -> T:
    """Return the sum of all devices' shares, at the end of a `data_parallel` function."""
    return jax.lax.psum(shares, "data") if "data" in _manual_axes() else shares


def random_words(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Return random uint32 words; the first axis counts rows. In a `data_parallel` function they
    are this device's part of the words of all rows, so that dropout is the same on any mesh. Under
    `row_numbers` they are a function of the row's number alone."""
    numbers = _row_numbers.get()
    if numbers is not None:
        return _words_of_rows(key, numbers, shape)
    if "data" not in _manual_axes():
        return jax.random.bits(key, shape, jnp.uint32)
    # A word of jax.random.bits is the hash of its 64-bit position in the whole array.
    size, device = math.prod(shape), jax.lax.axis_index("data")
    starts = np.arange(jax.lax.axis_size("data"), dtype=np.uint64) * np.uint64(size)
    high, low = (jnp.asarray(n.astype(np.uint32))[device] for n in (starts >> 32, starts % 2**32))
    lows = low + jax.lax.iota(jnp.uint32, size).reshape(shape)
    highs = high + (lows < low).astype(jnp.uint32)
    first, second = threefry2x32_p.bind(*jax.random.key_data(key), highs, lows)
    return first ^ second


@partial(
    jax.tree_util.register_dataclass, data_fields=["key", "high", "low"], meta_fields=["width"]
)
@dataclass(frozen=True)
class RandomWords:
    """The words that `random_words` returns for a shape (b, h, l, w), of which a part is made at a
    time. It may be passed into functions that are traced later or elsewhere."""

    key: Any  # uint32 [2]
    high: Any  # uint32 [b h]; with `low`: the number of the first word of a row and head
    low: Any
    width: int  # w

    @classmethod
    def of(cls, key: jax.Array, shape: tuple[int, int, int, int]) -> RandomWords:
        """The words of a call of `random_words`."""
        rows, heads, length, width = shape
        size, numbers = length * width, _row_numbers.get()
        key = jax.random.key_data(key)
        if numbers is not None:
            _check_row_numbers(numbers, rows, heads * size)
            low = jnp.arange(heads, dtype=jnp.uint32) * np.uint32(size)
            high = jnp.broadcast_to(numbers.astype(jnp.uint32)[:, None], (rows, heads))
            return cls(key, high, jnp.broadcast_to(low, (rows, heads)), width)
        starts = np.arange(rows * num_row_shards() * heads, dtype=np.uint64) * np.uint64(size)
        high, low = (
            jnp.asarray(n.astype(np.uint32)).reshape(-1, rows, heads)
            for n in (starts >> 32, starts % 2**32)
        )
        device = jax.lax.axis_index("data") if "data" in _manual_axes() else 0
        return cls(key, high[device], low[device], width)

    def at(self, i: jax.Array, j: jax.Array) -> jax.Array:
        """The words [:, :, i, j] of every row and head, uint32 [b h ...]. Where an index is out of
        range, the word is a random one."""
        places = i.astype(jnp.uint32) * np.uint32(self.width) + j.astype(jnp.uint32)
        first = self.low.reshape(*self.low.shape, *[1] * places.ndim)
        lows = first + places
        highs = self.high.reshape(first.shape) + (lows < first).astype(jnp.uint32)
        words = threefry2x32_p.bind(*self.key, highs, lows)
        return words[0] ^ words[1]


@contextlib.contextmanager
def row_numbers(numbers: jax.Array | None) -> Iterator[None]:
    """While a function is traced, `random_words` gives each row words that depend on its number
    [b], and on neither the other rows of the call nor the mesh. So a row has the same dropout in a
    whole batch and in a micro-batch. None changes nothing."""
    first = None
    if numbers is not None:  # of the whole micro-batch, of which a device has a part
        first = jax.lax.pmin(numbers[0], "data") if "data" in _manual_axes() else numbers[0]
    token, token_of_first = _row_numbers.set(numbers), _first_row.set(first)
    try:
        yield
    finally:
        _row_numbers.reset(token)
        _first_row.reset(token_of_first)


def _words_of_rows(key: jax.Array, numbers: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """The hash of the row's number and of the position in the row."""
    size = math.prod(shape[1:])
    _check_row_numbers(numbers, shape[0], size)
    rows = jnp.broadcast_to(numbers.astype(jnp.uint32)[:, None], (shape[0], size)).reshape(shape)
    at = jnp.broadcast_to(jax.lax.iota(jnp.uint32, size).reshape(1, *shape[1:]), shape)
    first, second = threefry2x32_p.bind(*jax.random.key_data(key), rows, at)
    return first ^ second


def _check_row_numbers(numbers: jax.Array, rows: int, size: int) -> None:
    if numbers.shape != (rows,) or size >= 1 << 32:
        raise ValueError(f"{numbers.shape[0]} row numbers for {rows} rows of {size} random words")


def row_seed(words: jax.Array) -> jax.Array:
    """The seed of a kernel that counts rows of its own call, made of `words`. Under `row_numbers`
    it also depends on the number of the first row of all devices: micro-batches then differ, and
    meshes do not."""
    first = _first_row.get()
    return words if first is None else words ^ (first.astype(jnp.uint32) * np.uint32(0x9E3779B9))


def gather_rows(x: jax.Array) -> jax.Array:
    """Return the rows of all devices, in the order of the whole batch."""
    if "data" in _manual_axes():
        return jax.lax.all_gather(x, "data", tiled=True)
    return constrain(x, *[None] * x.ndim)


def row_positions(rows: int) -> jax.Array:
    """Return the indices [b] of this device's `rows` rows in the whole batch, as `gather_rows`
    orders it."""
    at = jax.lax.iota(jnp.int32, rows)
    return at + jax.lax.axis_index("data") * rows if "data" in _manual_axes() else at


def row_shards() -> int:
    """In how many parts XLA splits the rows of a batch; 1 without a mesh, and in a `data_parallel`
    function, which sees one part."""
    mesh = jax.sharding.get_abstract_mesh()
    return axis_size(mesh, BATCH_AXES) if set(mesh.auto_axes) == set(MESH_AXES) else 1


def num_row_shards() -> int:
    """In how many parts a `data_parallel` function sees the rows; 1 elsewhere."""
    return jax.lax.axis_size("data") if "data" in _manual_axes() else 1


def _manual_axes() -> tuple[str, ...]:
    return jax.sharding.get_abstract_mesh().manual_axes


def axis_size(mesh: jax.sharding.Mesh | AbstractMesh, axes: Axes) -> int:
    """Return into how many shards mesh axes split a dimension."""
    return math.prod(mesh.shape[a] for a in axis_names(axes))


def axis_names(axes: Axes) -> tuple[str, ...]:
    """The mesh axes of one dimension as a tuple; empty if it is not sharded."""
    return () if axes is None else (axes,) if isinstance(axes, str) else axes
