"""The mesh, and one table of rules: parameter name -> PartitionSpec.

A rule gives the axes of a leaf's last dimensions. Leading dimensions (the stack of layers) are
not sharded, nor is a dimension that its axis does not divide. Optimizer moments have the names of
their parameters, so the same table covers them.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from bert_jax import config
from bert_jax.distributed.constraints import (
    BATCH_AXES,
    GPUS,
    MESH_AXES,
    axis_names,
    axis_size,
    mesh_context,
    platform,
)
from bert_jax.utils import pytree

T = TypeVar("T")
AXIS_TYPES = (AxisType.Auto,) * len(MESH_AXES)

RULES: tuple[tuple[str, P], ...] = (
    (r"embeddings/word(_difference)?$", P("tensor", "fsdp")),  # v e
    (r"embeddings/(position|type)(_difference)?$", P(None, "fsdp")),
    (r"(query|key|value|up|gate|first|projection|dense)/kernel$", P("fsdp", "tensor")),
    (r"(attention/out|own/out|down|second)/kernel$", P("tensor", "fsdp")),
    (r"(query|key|value|up|gate)/bias$", P("tensor")),
    (r"(attention|mlp|own)/(query|key|value|up|gate)/lora_a$", P("fsdp", None)),  # d r
    (r"(attention|mlp|own)/(query|key|value|up|gate)/lora_b$", P(None, "tensor")),  # r d
    (r"(attention|mlp|own)/(out|down)/lora_a$", P("tensor", None)),
    (r"(attention|mlp|own)/(out|down)/lora_b$", P(None, "fsdp")),
    (r"(mlm|sbo)/bias$", P(("tensor", "fsdp"))),
    (r"sbo/position$", P(None, "fsdp")),
    (r"(rtd/out|span/(start|end|answerable))/kernel$", P(("tensor", "fsdp"), None)),
    # A gather of each would take longer than its memory is worth: .1 % of the parameters.
    (r"/(bias|scale)$", P()),
    (r"(^|/)temperature$", P()),
    (r"(^|/)(step|count|t)$", P()),
    (r"^guard/", P()),
)


def make_mesh(mesh: config.Mesh, devices: Sequence[Any] | None = None) -> jax.sharding.Mesh:
    """Return a mesh (data, fsdp, tensor) over all devices; an axis of -1 takes the rest."""
    devices = jax.devices() if devices is None else devices
    shape = tuple(mesh_shape(mesh, len(devices)).values())
    if int(np.prod(shape)) != len(devices):
        raise ValueError(
            f"mesh (data, fsdp, tensor) = {shape} needs {int(np.prod(shape))} devices, "
            f"found {len(devices)}: change mesh.data, mesh.fsdp or mesh.tensor"
        )
    if num_slices(devices) > 1:
        return jax.sharding.Mesh(grid_of_slices(shape, devices), MESH_AXES, axis_types=AXIS_TYPES)
    try:
        return jax.make_mesh(shape, MESH_AXES, axis_types=AXIS_TYPES, devices=devices)
    except NotImplementedError:  # 8 of a TPU slice of 16 x 16: an axis of the torus is split
        grid = mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
        return jax.sharding.Mesh(grid, MESH_AXES, axis_types=AXIS_TYPES)


def num_slices(devices: Sequence[Any]) -> int:
    """In how many parts a fast network joins the devices: TPU slices, or hosts with GPUs."""
    return len({getattr(device, "slice_index", 0) for device in devices})


def grid_of_slices(shape: Sequence[int], devices: Sequence[Any]) -> np.ndarray:
    """The devices of several slices in the shape of a mesh, which `jax.make_mesh` refuses. `data`
    crosses slices, and `fsdp` and `tensor` stay within one. On GPUs they may cross them, too.
    ValueError: `mesh.data` is no multiple of the number of slices of TPUs.
    """
    slices = num_slices(devices)
    sizes = Counter(device.slice_index for device in devices).values()
    if shape[0] % slices == 0 and len(set(sizes)) == 1:
        within = (shape[0] // slices, *shape[1:])
        return mesh_utils.create_hybrid_device_mesh(
            within, (slices, 1, 1), devices, allow_split_physical_axes=True
        )
    if devices[0].platform in GPUS:
        return mesh_utils.create_device_mesh(shape, devices)
    raise ValueError(
        f"mesh.data is {shape[0]}, and there are {slices} slices of TPUs: expected a multiple of "
        f"{slices}, since mesh.fsdp and mesh.tensor stay within a slice"
    )


def abstract_mesh(mesh: config.Mesh) -> AbstractMesh:
    """Return the same mesh without its devices, to compute how leaves would be sharded."""
    shape = tuple(mesh_shape(mesh, len(jax.devices())).values())
    return AbstractMesh(shape, MESH_AXES, axis_types=AXIS_TYPES)


def mesh_shape(mesh: config.Mesh, num_devices: int) -> dict[str, int]:
    """Return the number of devices along each axis; one of -1 takes the rest of `num_devices`.

    Raise ValueError if several axes are -1, or one has another size below 1.
    """
    shape = [mesh.data, mesh.fsdp, mesh.tensor]
    if shape.count(-1) > 1 or any(n < 1 and n != -1 for n in shape):
        raise ValueError(f"mesh {tuple(shape)}: expected positive sizes; one may be -1")
    if -1 in shape:
        shape[shape.index(-1)] = max(1, num_devices // -int(np.prod(shape)))
    return dict(zip(MESH_AXES, shape, strict=True))


def check_batch(size: int, accumulate: int, mesh: jax.sharding.Mesh) -> None:
    """Raise ValueError if the rows do not divide over the devices that hold different rows."""
    n = axis_size(mesh, BATCH_AXES)
    if size % (n * accumulate):
        raise ValueError(
            f"data.batch_size {size} is not divisible by {n} devices (mesh.data x mesh.fsdp) "
            f"times optim.accumulate {accumulate}: choose a multiple of {n * accumulate}"
        )


def partition_spec(name: str, shape: tuple[int, ...], mesh: jax.sharding.Mesh | AbstractMesh) -> P:
    """Return the PartitionSpec of one leaf."""
    rule = pytree.first_match(RULES, name)
    axes = [None] * (len(shape) - len(rule)) + list(rule)
    spec = [a if n % axis_size(mesh, a) == 0 else None for a, n in zip(axes, shape, strict=True)]
    return P(*spec)


def unsharded_dims(
    name: str, shape: tuple[int, ...], mesh: jax.sharding.Mesh | AbstractMesh
) -> list[tuple[int, str]]:
    """Return the dimensions of a leaf that its axes do not divide, as (size, axes)."""
    rule = pytree.first_match(RULES, name)
    last = zip(shape[len(shape) - len(rule) :], rule, strict=True)
    return [(n, " x ".join(axis_names(a))) for n, a in last if n % axis_size(mesh, a)]


def bytes_per_device(
    name: str, shape: tuple[int, ...], mesh: jax.sharding.Mesh | AbstractMesh
) -> int:
    """Return the size of one float32 leaf on each device."""
    shard = [
        n // axis_size(mesh, a)
        for n, a in zip(shape, partition_spec(name, shape, mesh), strict=True)
    ]
    return 4 * math.prod(shard)


def shardings(tree: Any, mesh: jax.sharding.Mesh) -> Any:
    """Return a sharding for every leaf of a tree of arrays or abstract arrays."""
    return pytree.map_with_names(
        lambda n, x: NamedSharding(mesh, partition_spec(n, x.shape, mesh)), tree
    )


def pad_vocab(params: Any, mesh: jax.sharding.Mesh | AbstractMesh) -> Any:
    """Pad the leaves that count tokens with zeros to a multiple of tensor x fsdp, on GPUs of eight
    times as many: their matrix units take 16-bit rows of a multiple of eight, and products with
    BERT's 30,522 tokens take 1.3 times as long without (H200; docs/performance.md).

    Most vocabularies are not divisible. No softmax sees the padding rows (model/heads.py), they get
    no gradient, and checkpoints open with any number of them (checkpoint/vocab_padding.py).
    """

    on_gpu = (mesh.devices.flat[0].platform if isinstance(mesh, Mesh) else platform()) in GPUS
    multiple = axis_size(mesh, ("tensor", "fsdp")) * (8 if on_gpu else 1)

    def leaf(name: str, x: Any) -> Any:
        if not pytree.is_embedding_table(name):
            return x
        padding = -x.shape[0] % multiple
        return jnp.pad(x, [(0, padding)] + [(0, 0)] * (x.ndim - 1)) if padding else x

    return pytree.map_with_names(leaf, params)


def with_mesh(mesh: jax.sharding.Mesh, f: Callable[..., T]) -> Callable[..., T]:
    """Return `f`, traced in the mesh's context."""

    def traced(*args: Any) -> T:
        with mesh_context(mesh):
            return f(*args)

    return traced


def batch_sharding(mesh: jax.sharding.Mesh) -> NamedSharding:
    """Return the sharding of a batch: rows over data and fsdp."""
    return NamedSharding(mesh, P(BATCH_AXES))


def replicated(mesh: jax.sharding.Mesh) -> NamedSharding:
    """The sharding of a value that every device holds as a whole."""
    return NamedSharding(mesh, P())


def put(value: np.ndarray, sharding: jax.sharding.Sharding) -> jax.Array:
    """Put an array that this process holds as a whole on the devices of a sharding.

    Over several processes `jax.device_put` would first gather every process's copy on every device,
    to compare them; here each device gets its part alone.
    """
    if sharding.is_fully_addressable:
        return jax.device_put(value, sharding)
    return jax.make_array_from_callback(value.shape, sharding, lambda index: value[index])


def to_devices(batch: dict[str, np.ndarray], mesh: jax.sharding.Mesh) -> dict[str, jax.Array]:
    """Put this process's rows, those of `process_slices`, on its devices as a global batch."""
    sharding, slices = batch_sharding(mesh), process_slices(mesh)
    count = slices[0][1]
    if count == 1:
        return {name: put(rows, sharding) for name, rows in batch.items()}
    position = {i: position for position, (i, _) in enumerate(slices)}

    def to_global(local: np.ndarray) -> jax.Array:
        size = len(local) // len(slices)

        def on_device(index: tuple[slice, ...] | None) -> np.ndarray:
            assert index is not None
            begin, end, _ = index[0].indices(count * size)
            first = position[begin // size] * size + begin % size
            return local[first : first + end - begin]

        shape = (count * size, *local.shape[1:])
        return jax.make_array_from_callback(shape, sharding, on_device)

    return {k: to_global(v) for k, v in batch.items()}


def process_slices(mesh: jax.sharding.Mesh, process: int | None = None) -> list[tuple[int, int]]:
    """Return which rows of a batch the devices of a process (None: this one) hold.

    Each slice is (i, n): the i-th of n equal parts. There is one slice if the rows are contiguous.
    Processes that differ along `tensor` alone hold the same rows.
    """
    process = jax.process_index() if process is None else process
    owners = np.array([d.process_index for d in mesh.devices.flat])
    owners = owners.reshape(-1, mesh.shape["tensor"])
    groups = np.flatnonzero((owners == process).any(axis=1))
    count, n = len(groups), len(owners)
    begin = int(groups[0])
    if groups[-1] - begin == count - 1 and n % count == 0 and begin % count == 0:
        return [(begin // count, n // count)]
    return [(int(i), n) for i in groups]


def host_share(mesh: jax.sharding.Mesh) -> float:
    """Return the rows of a batch over the rows of this process."""
    slices = process_slices(mesh)
    return slices[0][1] / len(slices)
