"""The axes of the mesh, and where the widest arrays of a step lie on it.

    data     rows                  fsdp     rows; parameters and optimiser state are cut up
    tensor   the width of a layer, heads, the vocabulary; rows are the same along it

The steps are traced under their mesh (`sharding.on`); without one `constrain` does nothing.
Left to itself XLA cuts activations along `fsdp` as the kernels are, and sums where it should
gather.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.random import threefry2x32_p
from jax.sharding import AbstractMesh
from jax.sharding import PartitionSpec as P

AXES = ("data", "fsdp", "tensor")
ROWS = ("data", "fsdp")

Axes = str | tuple[str, ...] | None
T = TypeVar("T")

_platform: ContextVar[str | None] = ContextVar("platform", default=None)


@contextlib.contextmanager
def mesh_context(mesh: jax.sharding.Mesh) -> Iterator[None]:
    """What is traced within knows the mesh and the platform of its devices, which need not be
    here: a step is compiled for a TPU on a machine without one."""
    token = _platform.set(mesh.devices.flat[0].platform)
    try:
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            yield
    finally:
        _platform.reset(token)


def platform() -> str:
    """cpu, gpu or tpu: what is being traced will run there."""
    return _platform.get() or jax.default_backend()


def constrain(x: jax.Array, *axes: Axes) -> jax.Array:
    """`x` with these mesh axes along its dimensions; one that does not divide stays whole."""
    mesh = jax.sharding.get_abstract_mesh()
    if set(mesh.auto_axes) != set(AXES):  # no mesh, or inside of a shard_map
        return x
    spec = [a if n % axis_size(mesh, a) == 0 else None for n, a in zip(x.shape, axes, strict=True)]
    return jax.lax.with_sharding_constraint(x, P(*spec))


# Named, since `random_words` and the keys of a batch's rows count on how its words are made.
PRNG = "threefry2x32"

# ---- rows by hand


def data_parallel(f: Callable[[Any, Any, Any], T]) -> Callable[[Any, Any, Any], T]:
    """`f(params, batch, keys)` on each device's own rows, where rows are all that the mesh cuts.

    `f` makes its device's share of sums over rows, and ends with `over_rows`. Left to itself
    XLA adds a gradient up over devices wherever a part of it arises: a tied table's at both its
    uses, a shared layer's at every layer, all of them in every micro-batch. With `fsdp` or
    `tensor` beside `data` it is left to itself: taking one axis of several in hand compiles for
    CPUs, but stops XLA's partitioner for TPUs with a failed check (libtpu 0.0.52).
    """
    mesh = jax.sharding.get_abstract_mesh()
    if not mesh.shape or mesh.size == 1 or mesh.size != mesh.shape["data"]:
        return f
    return jax.shard_map(
        f,
        in_specs=(P(), P("data"), P()),
        out_specs=P(),
        check_vma=False,  # it would add up each part of a gradient by itself, as XLA does
    )


def psum_batch(shares: T) -> T:
    """The sum of all devices' shares; at the end of a function that runs `by_rows`."""
    return jax.lax.psum(shares, "data") if "data" in _in_hand() else shares


def random_words(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Random uint32 whose first axis counts rows: within `by_rows` those of this device's rows
    among the words of all, so that dropout is the same on any mesh."""
    if "data" not in _in_hand():
        return jax.random.bits(key, shape, jnp.uint32)
    # A word of jax.random.bits is the hash of its 64-bit place in the whole array.
    size, here = math.prod(shape), jax.lax.axis_index("data")
    before = np.arange(jax.lax.axis_size("data"), dtype=np.uint64) * np.uint64(size)
    high, low = (jnp.asarray(n.astype(np.uint32))[here] for n in (before >> 32, before % 2**32))
    lows = low + jax.lax.iota(jnp.uint32, size).reshape(shape)
    highs = high + (lows < low).astype(jnp.uint32)
    first, second = threefry2x32_p.bind(*jax.random.key_data(key), highs, lows)
    return first ^ second


def _in_hand() -> tuple[str, ...]:
    return jax.sharding.get_abstract_mesh().manual_axes


def axis_size(mesh: jax.sharding.Mesh | AbstractMesh, axes: Axes) -> int:
    """Into how many pieces mesh axes cut a dimension."""
    return math.prod(mesh.shape[a] for a in axis_names(axes))


def axis_names(axes: Axes) -> tuple[str, ...]:
    return () if axes is None else (axes,) if isinstance(axes, str) else axes
