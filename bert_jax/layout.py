"""The axes of the mesh, and where the widest arrays of a step lie on it.

    data     rows                  fsdp     rows; parameters and optimiser state are cut up
    tensor   the width of a layer, heads, the vocabulary; rows are the same along it

The steps are traced under their mesh (`sharding.on`); without one `constrain` does nothing.
Left to itself XLA cuts activations along `fsdp` as the kernels are, and sums where it should
gather.
"""

from __future__ import annotations

import math

import jax
from jax.sharding import AbstractMesh
from jax.sharding import PartitionSpec as P

AXES = ("data", "fsdp", "tensor")
ROWS = ("data", "fsdp")

Axes = str | tuple[str, ...] | None


def constrain(x: jax.Array, *axes: Axes) -> jax.Array:
    """`x` with these mesh axes along its dimensions; one that does not divide stays whole."""
    mesh = jax.sharding.get_abstract_mesh()
    if set(mesh.auto_axes) != set(AXES):  # no mesh, or inside of a shard_map
        return x
    spec = [a if n % ways(mesh, a) == 0 else None for n, a in zip(x.shape, axes, strict=True)]
    return jax.lax.with_sharding_constraint(x, P(*spec))


def ways(mesh: jax.sharding.Mesh | AbstractMesh, axes: Axes) -> int:
    """Into how many pieces mesh axes cut a dimension."""
    return math.prod(mesh.shape[a] for a in names(axes))


def names(axes: Axes) -> tuple[str, ...]:
    return () if axes is None else (axes,) if isinstance(axes, str) else axes
