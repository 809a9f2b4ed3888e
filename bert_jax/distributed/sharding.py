"""The mesh, and one table that says how every leaf lies on it.

A rule gives the axes of a leaf's last dimensions; leading ones (the stack of layers) stay
whole, and so does any dimension that its axis does not divide. Optimiser moments carry their
parameter's name, so the same table covers them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AbstractMesh, AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from bert_jax import config
from bert_jax.distributed.constraints import AXES, ROWS, axis_names, axis_size, mesh_context
from bert_jax.utils import pytree

T = TypeVar("T")
TYPES = (AxisType.Auto,) * len(AXES)

RULES: tuple[tuple[str, P], ...] = (
    (r"embeddings/word$", P("tensor", "fsdp")),  # v e
    (r"embeddings/(position|type)$", P(None, "fsdp")),
    (r"(query|key|value|up|gate|first|projection|dense)/kernel$", P("fsdp", "tensor")),
    (r"(attention/out|own/out|down|second)/kernel$", P("tensor", "fsdp")),
    (r"(query|key|value|up|gate)/bias$", P(("tensor", "fsdp"))),
    (r"(mlm|sbo)/bias$", P(("tensor", "fsdp"))),
    (r"sbo/position$", P(None, "fsdp")),
    (r"(rtd/out|span/(start|end|answerable))/kernel$", P(("tensor", "fsdp"), None)),
    (r"/(bias|scale)$", P("fsdp")),
    (r"(^|/)(step|count|t)$", P()),
    (r"^guard/", P()),
)


def make_mesh(mesh: config.Mesh, devices: Sequence[Any] | None = None) -> jax.sharding.Mesh:
    """A mesh (data, fsdp, tensor) over all devices; an axis of -1 takes what is left."""
    devices = jax.devices() if devices is None else devices
    shape = _shape(mesh, len(devices))
    if int(np.prod(shape)) != len(devices):
        raise ValueError(
            f"mesh (data, fsdp, tensor) = {shape} needs {int(np.prod(shape))} devices, "
            f"found {len(devices)}: change mesh.data, mesh.fsdp or mesh.tensor"
        )
    try:
        return jax.make_mesh(shape, AXES, axis_types=TYPES, devices=devices)
    except NotImplementedError:  # 8 of a TPU slice of 16 x 16: an axis of the torus is cut in two
        grid = mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
        return jax.sharding.Mesh(grid, AXES, axis_types=TYPES)


def abstract_mesh(mesh: config.Mesh) -> AbstractMesh:
    """The same mesh without its devices, to look at how leaves would lie on it."""
    return AbstractMesh(_shape(mesh, len(jax.devices())), AXES, axis_types=TYPES)


def _shape(mesh: config.Mesh, devices: int) -> tuple[int, ...]:
    shape = [mesh.data, mesh.fsdp, mesh.tensor]
    if shape.count(-1) > 1 or any(n < 1 and n != -1 for n in shape):
        raise ValueError(f"mesh {tuple(shape)}: expected positive sizes, one of them perhaps -1")
    if -1 in shape:
        shape[shape.index(-1)] = max(1, devices // -int(np.prod(shape)))
    return tuple(shape)


def check_batch(size: int, accumulate: int, mesh: jax.sharding.Mesh) -> None:
    """Rows must divide over the devices that hold different rows."""
    n = axis_size(mesh, ROWS)
    if size % (n * accumulate):
        raise ValueError(
            f"data.batch_size {size} does not divide over {n} devices (mesh.data x mesh.fsdp) "
            f"times optim.accumulate {accumulate}: choose a multiple of {n * accumulate}"
        )


def partition_spec(name: str, shape: tuple[int, ...], mesh: jax.sharding.Mesh | AbstractMesh) -> P:
    """The partition of one leaf."""
    rule = pytree.first_match(RULES, name)
    axes = [None] * (len(shape) - len(rule)) + list(rule)
    fits = [a if n % axis_size(mesh, a) == 0 else None for a, n in zip(axes, shape, strict=True)]
    return P(*fits)


def unsharded_dims(
    name: str, shape: tuple[int, ...], mesh: jax.sharding.Mesh | AbstractMesh
) -> list[tuple[int, str]]:
    """Dimensions of a leaf that stay whole since their axes do not divide them, and these."""
    rule = pytree.first_match(RULES, name)
    last = zip(shape[len(shape) - len(rule) :], rule, strict=True)
    return [(n, " x ".join(axis_names(a))) for n, a in last if n % axis_size(mesh, a)]


def bytes_per_device(
    name: str, shape: tuple[int, ...], mesh: jax.sharding.Mesh | AbstractMesh
) -> int:
    """Of one float32 leaf."""
    cut = [
        n // axis_size(mesh, a)
        for n, a in zip(shape, partition_spec(name, shape, mesh), strict=True)
    ]
    return 4 * math.prod(cut)


def shardings(tree: Any, mesh: jax.sharding.Mesh) -> Any:
    """A sharding for every leaf of a tree of arrays or abstract arrays."""
    return pytree.map_with_names(
        lambda n, x: NamedSharding(mesh, partition_spec(n, x.shape, mesh)), tree
    )


def pad_vocab(params: Any, mesh: jax.sharding.Mesh | AbstractMesh) -> Any:
    """The leaves that count tokens, with zeros up to a multiple of tensor x fsdp: most vocabularies
    divide by nothing. No softmax sees these rows (model/heads.py), they get no
    gradient, and checkpoints open without them, or with another number (checkpoint.py)."""

    def leaf(name: str, x: Any) -> Any:
        more = (
            -x.shape[0] % axis_size(mesh, ("tensor", "fsdp"))
            if pytree.is_embedding_table(name)
            else 0
        )
        return jnp.pad(x, [(0, more)] + [(0, 0)] * (x.ndim - 1)) if more else x

    return pytree.map_with_names(leaf, params)


def with_mesh(mesh: jax.sharding.Mesh, f: Callable[..., T]) -> Callable[..., T]:
    """`f`, traced where `layout` knows the mesh."""

    def inside(*args: Any) -> T:
        with mesh_context(mesh):
            return f(*args)

    return inside


def batch_sharding(mesh: jax.sharding.Mesh) -> NamedSharding:
    """Of a batch: rows over data and fsdp, every row whole."""
    return NamedSharding(mesh, P(ROWS))


def replicated(mesh: jax.sharding.Mesh) -> NamedSharding:
    return NamedSharding(mesh, P())


def to_devices(batch: dict[str, np.ndarray], mesh: jax.sharding.Mesh) -> dict[str, jax.Array]:
    """This process's rows, those of `parts`, as its share of the global batch."""
    where, mine = batch_sharding(mesh), process_slices(mesh)
    shares = mine[0][1]
    if shares == 1:
        return jax.device_put(batch, where)
    at = {i: place for place, (i, _) in enumerate(mine)}

    def share(local: np.ndarray) -> jax.Array:
        size = len(local) // len(mine)

        def on_device(index: tuple[slice, ...] | None) -> np.ndarray:
            assert index is not None
            begin, end, _ = index[0].indices(shares * size)
            first = at[begin // size] * size + begin % size
            return local[first : first + end - begin]

        shape = (shares * size, *local.shape[1:])
        return jax.make_array_from_callback(shape, where, on_device)

    return {k: share(v) for k, v in batch.items()}


def process_slices(mesh: jax.sharding.Mesh, process: int | None = None) -> list[tuple[int, int]]:
    """Which rows of a batch the devices of a process (None: this one) hold, as (i, n): the i-th
    of n equal parts. One part where they are next to each other; processes that differ along
    `tensor` alone hold the same rows."""
    process = jax.process_index() if process is None else process
    owners = np.array([d.process_index for d in mesh.devices.flat])
    owners = owners.reshape(-1, mesh.shape["tensor"])
    mine = np.flatnonzero((owners == process).any(axis=1))
    count, n = len(mine), len(owners)
    begin = int(mine[0])
    if mine[-1] - begin == count - 1 and n % count == 0 and begin % count == 0:
        return [(begin // count, n // count)]
    return [(int(i), n) for i in mine]


def host_share(mesh: jax.sharding.Mesh) -> float:
    """How often this process's rows make up a batch."""
    mine = process_slices(mesh)
    return mine[0][1] / len(mine)
