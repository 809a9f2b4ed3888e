"""The parameter table of a config, from shapes alone."""

from __future__ import annotations

from collections.abc import Sequence

import jax

from bert_jax import objectives, optim
from bert_jax.config import Experiment
from bert_jax.config.freeze import parse_freeze
from bert_jax.distributed import sharding
from bert_jax.distributed.constraints import axis_names
from bert_jax.model import lora
from bert_jax.utils import pytree
from bert_jax.utils.tables import format_table
from bert_jax.utils.types import Json


def parameter_table(config: Experiment) -> Json:
    """The parameters of a config and their sharding on its mesh, whose devices need not exist:

        {"parameters": {"total": n, "leaves": [{name, shape, count, sharding, bytes_per_device,
                                                undivided}, ...]},
         "mesh": {data, fsdp, tensor}, "bytes": {parameters, state, state_per_device}}

    Bytes are those of float32; `state` includes the optimizer's moments. Rows that pad the
    vocabulary count in the bytes per device alone. `undivided` lists the dimensions that are not
    sharded because the mesh axis does not divide them, as (size, axis).
    """
    shapes = objectives.param_shapes(config)
    if config.lora.enabled:
        shapes = lora.join(lora.trained_shapes(config.lora, shapes), shapes)
    mesh = sharding.abstract_mesh(config.mesh)
    padded = pytree.flatten_with_names(
        jax.eval_shape(lambda x: sharding.pad_vocab(x, mesh), shapes)
    )
    leaves = [
        {
            "name": name,
            "shape": list(leaf.shape),
            "count": leaf.size,
            "sharding": list(sharding.partition_spec(name, padded[name].shape, mesh)),
            "bytes_per_device": sharding.bytes_per_device(name, padded[name].shape, mesh),
            "undivided": sharding.unsharded_dims(name, padded[name].shape, mesh),
        }
        for name, leaf in pytree.flatten_with_names(shapes).items()
    ]
    copies = [1 + _moments_per_parameter(config, leaf["name"], leaf["shape"]) for leaf in leaves]
    total = pytree.count(shapes)
    return {
        "parameters": {"total": total, "leaves": leaves},
        "mesh": dict(mesh.shape),
        "bytes": {
            "parameters": 4 * total,
            "state": round(
                sum(4 * leaf["count"] * n for leaf, n in zip(leaves, copies, strict=True))
            ),
            "state_per_device": round(
                sum(leaf["bytes_per_device"] * n for leaf, n in zip(leaves, copies, strict=True))
            ),
        },
    }


def _moments_per_parameter(config: Experiment, name: str, shape: Sequence[int]) -> float:
    """How many numbers the optimizer stores per parameter of a leaf: none for frozen ones."""
    moments = optim.num_moments(config.optim, name)
    if config.lora.enabled:
        return 0 if lora.is_base(name) else moments
    if config.optim.freeze is None:
        return moments
    frozen = parse_freeze(config.optim.freeze)
    is_frozen = optim.is_frozen(frozen, optim.network_depth(config), name, tuple(shape))
    return moments * (1 - float(is_frozen.mean()))


def render_param_table(table: Json) -> str:
    """The object of `parameter_table` as text, with the totals."""
    leaves, mesh, sizes = table["parameters"]["leaves"], table["mesh"], table["bytes"]
    rows = []
    for leaf in leaves:
        shape = "x".join(map(str, leaf["shape"])) or "-"
        axes = ", ".join(" x ".join(axis_names(a)) or "-" for a in leaf["sharding"])
        notes = "".join(f"  {n} is not divisible by {axis}" for n, axis in leaf["undivided"])
        counts = f"{leaf['count']:,}", f"{leaf['bytes_per_device']:,}"
        rows.append([leaf["name"], shape, *counts, f"({axes}){notes}"])
    per_device = sum(leaf["bytes_per_device"] for leaf in leaves)
    rows.append(["total", "", f"{table['parameters']['total']:,}", f"{per_device:,}", ""])
    header = ("name", "shape", "parameters", "bytes per device", "sharding")
    axes = ", ".join(f"{axis} {n}" for axis, n in mesh.items())
    return (
        f"{format_table(header, rows, left=(0, 4))}\n"
        f"mesh ({axes}): with the optimizer's moments {sizes['state_per_device']:,} bytes per "
        f"device of {sizes['state']:,}"
    )
