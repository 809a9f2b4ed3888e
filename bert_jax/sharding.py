"""The mesh, and one table that says how every leaf lies on it.

A rule gives the axes of a leaf's last dimensions; leading ones (the stack of layers) stay
whole, and so does any dimension that its axis does not divide. Optimiser moments carry their
parameter's name, so the same table covers them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AbstractMesh, AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from bert_jax import config, trees

AXES = ("data", "fsdp", "tensor")
TYPES = (AxisType.Auto,) * len(AXES)

RULES: tuple[tuple[str, P], ...] = (
    (r"embeddings/word$", P("tensor", "fsdp")),  # v e
    (r"embeddings/(position|type)$", P(None, "fsdp")),
    (r"(query|key|value|up|first|projection|dense)/kernel$", P("fsdp", "tensor")),
    (r"(attention/out|own/out|down|second)/kernel$", P("tensor", "fsdp")),
    (r"(query|key|value|up)/bias$", P("tensor")),
    (r"(mlm|sbo)/bias$", P("tensor")),
    (r"sbo/position$", P()),
    (r"rtd/out/kernel$", P("fsdp", None)),
    (r"/(bias|scale)$", P()),
    (r"(^|/)(step|count|t)$", P()),
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
    return jax.make_mesh(shape, AXES, axis_types=TYPES, devices=devices)


def imagined_mesh(mesh: config.Mesh) -> AbstractMesh:
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
    ways = mesh.shape["data"] * mesh.shape["fsdp"]
    if size % (ways * accumulate):
        raise ValueError(
            f"data.batch_size {size} does not divide over {ways} devices (mesh.data x mesh.fsdp) "
            f"times optim.accumulate {accumulate}: choose a multiple of {ways * accumulate}"
        )


def spec(name: str, shape: tuple[int, ...], mesh: jax.sharding.Mesh | AbstractMesh) -> P:
    """The partition of one leaf."""
    rule = trees.first_match(RULES, name)
    axes = [None] * (len(shape) - len(rule)) + list(rule)
    fits = [a if a and n % mesh.shape[a] == 0 else None for a, n in zip(axes, shape, strict=True)]
    return P(*fits)


def shardings(tree: Any, mesh: jax.sharding.Mesh) -> Any:
    """A sharding for every leaf of a tree of arrays or abstract arrays."""
    return trees.map_named(lambda n, x: NamedSharding(mesh, spec(n, x.shape, mesh)), tree)


def rows(mesh: jax.sharding.Mesh) -> NamedSharding:
    """Of a batch: rows over data and fsdp, every row whole."""
    return NamedSharding(mesh, P(("data", "fsdp")))


def replicated(mesh: jax.sharding.Mesh) -> NamedSharding:
    return NamedSharding(mesh, P())


def to_devices(batch: dict[str, np.ndarray], mesh: jax.sharding.Mesh) -> dict[str, jax.Array]:
    """This process's rows as its part of the global batch."""
    where = rows(mesh)
    return {k: jax.make_array_from_process_local_data(where, v) for k, v in batch.items()}
