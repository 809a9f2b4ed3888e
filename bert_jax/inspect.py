"""The parameter table of an experiment, from shapes alone."""

from __future__ import annotations

from typing import Any

import jax

from bert_jax import objectives, sharding, trees
from bert_jax.config import Experiment


def parameters(experiment: Experiment) -> dict[str, Any]:
    """`{"parameters": {"total": n, "leaves": [{name, shape, count, sharding}, ...]}}`."""
    shapes = jax.eval_shape(objectives.build(experiment).init, jax.random.key(0))
    mesh = sharding.imagined_mesh(experiment.mesh)
    leaves = [
        {
            "name": name,
            "shape": list(leaf.shape),
            "count": leaf.size,
            "sharding": list(sharding.spec(name, leaf.shape, mesh)),
        }
        for name, leaf in trees.named_leaves(shapes).items()
    ]
    return {"parameters": {"total": trees.count(shapes), "leaves": leaves}}


def render(table: dict[str, Any]) -> str:
    """The same for the eye: aligned columns and the total."""
    leaves = table["parameters"]["leaves"]
    wide = max(len(leaf["name"]) for leaf in leaves)
    lines = []
    for leaf in leaves:
        shape = "x".join(map(str, leaf["shape"])) or "-"
        axes = ", ".join(a or "-" for a in leaf["sharding"])
        lines.append(f"{leaf['name']:<{wide}}  {shape:>16}  {leaf['count']:>13,}  ({axes})")
    total = table["parameters"]["total"]
    return "\n".join([*lines, f"{'total':<{wide}}  {'':>16}  {total:>13,}"])
