"""Kernels on a mesh: XLA cannot cut a custom call, so each device is handed its own rows and heads.

An axis of the mesh that does not divide the rows or the heads leaves them whole, and its devices
do the same work; see constraints.constrain, which does likewise.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax.sharding import PartitionSpec as P

from bert_jax.distributed.constraints import BATCH_AXES, MESH_AXES, Axes, axis_names, axis_size


class KernelCost(NamedTuple):
    """Of one call of a kernel."""

    flops: int
    bytes: int
    exponentials: int


class AttentionShards(NamedTuple):
    """How the mesh in sight cuts attention."""

    outer: Axes  # that an enclosing shard_map has cut the rows along (constraints.data_parallel)
    rows: Axes
    heads: Axes
    on_mesh: bool

    @classmethod
    def of(cls, rows: int, heads: int) -> AttentionShards:
        mesh = jax.sharding.get_abstract_mesh()
        if set(mesh.auto_axes) != set(MESH_AXES) or mesh.size == 1:  # or inside of a shard_map
            outer = tuple(a for a in BATCH_AXES if a in mesh.manual_axes)
            return cls(outer, None, None, on_mesh=False)
        return cls(
            None,
            BATCH_AXES if rows % axis_size(mesh, BATCH_AXES) == 0 else None,
            "tensor" if heads % axis_size(mesh, "tensor") == 0 else None,
            on_mesh=True,
        )

    def map(
        self, f: Callable[..., Any], specs: tuple[P, ...], out: P | tuple[P, ...]
    ) -> Callable[..., Any]:
        """`f` on every device's piece of its arguments."""
        if not self.on_mesh:
            return f
        # Pallas does not say along which axes its results vary.
        return jax.shard_map(f, in_specs=specs, out_specs=out, check_vma=False)

    def first(self, rows: int, heads: int) -> tuple[jax.Array | int, jax.Array | int]:
        """The number, in the whole batch, of the first row and head of this device, which holds
        so many; within `map`."""
        axes = (*axis_names(self.outer), *axis_names(self.rows))
        row = jax.lax.axis_index(axes) * rows if axes else 0
        return row, jax.lax.axis_index(self.heads) * heads if self.heads else 0
