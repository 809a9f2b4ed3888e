"""The parameter table of an experiment, from shapes alone."""

from __future__ import annotations

from typing import Any

import jax

from bert_jax import objectives, optim
from bert_jax.config import Experiment
from bert_jax.distributed import sharding
from bert_jax.distributed.constraints import axis_names
from bert_jax.utils import pytree
from bert_jax.utils.tables import format_table


def parameter_table(experiment: Experiment) -> dict[str, Any]:
    """What is trained, and how it lies on the config's mesh, whose devices need not be there:

        {"parameters": {"total": n, "leaves": [{name, shape, count, sharding, bytes_per_device,
                                                undivided}, ...]},
         "mesh": {data, fsdp, tensor}, "bytes": {parameters, state, state_per_device}}

    Bytes are of float32, the state's with the optimiser's moments; rows that pad the vocabulary
    are among the bytes per device and nowhere else. `undivided` lists dimensions that stay
    whole since their axis does not divide them.
    """
    shapes = jax.eval_shape(objectives.build(experiment).init, jax.random.key(0))
    mesh = sharding.abstract_mesh(experiment.mesh)
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
    states = [1 + optim.num_moments(experiment.optim, leaf["name"]) for leaf in leaves]
    total = pytree.count(shapes)
    return {
        "parameters": {"total": total, "leaves": leaves},
        "mesh": dict(mesh.shape),
        "bytes": {
            "parameters": 4 * total,
            "state": sum(4 * leaf["count"] * n for leaf, n in zip(leaves, states, strict=True)),
            "state_per_device": sum(
                leaf["bytes_per_device"] * n for leaf, n in zip(leaves, states, strict=True)
            ),
        },
    }


def render_param_table(table: dict[str, Any]) -> str:
    """The parameter table as text, with the total."""
    leaves, mesh, sizes = table["parameters"]["leaves"], table["mesh"], table["bytes"]
    rows = []
    for leaf in leaves:
        shape = "x".join(map(str, leaf["shape"])) or "-"
        axes = ", ".join(" x ".join(axis_names(a)) or "-" for a in leaf["sharding"])
        notes = "".join(f"  {n} does not divide by {axis}" for n, axis in leaf["undivided"])
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
