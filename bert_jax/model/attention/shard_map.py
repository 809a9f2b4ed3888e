"""Attention kernels on a mesh. XLA cannot partition a custom call, so `shard_map` hands each device
its own rows and heads.

A mesh axis whose size does not divide the rows or the heads leaves them whole: its devices then
do the same work. `constraints.constrain` follows the same rule.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax.sharding import PartitionSpec as P

from bert_jax.distributed.constraints import BATCH_AXES, MESH_AXES, Axes, axis_names, axis_size


class KernelCost(NamedTuple):
    """The cost of one kernel call."""

    flops: int
    bytes: int
    exponentials: int


class AttentionShards(NamedTuple):
    """How the current mesh partitions attention."""

    outer: Axes  # axes along which an enclosing shard_map splits the rows (`data_parallel`)
    rows: Axes
    heads: Axes
    on_mesh: bool

    @classmethod
    def of(cls, rows: int, heads: int) -> AttentionShards:
        """The partition of that many rows and heads on the current mesh."""
        mesh = jax.sharding.get_abstract_mesh()
        if set(mesh.auto_axes) != set(MESH_AXES) or mesh.size == 1:  # or inside a shard_map
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
        """`f`, applied on every device to its shard of the arguments."""
        if not self.on_mesh:
            return f
        # Pallas does not declare along which axes its results vary.
        return jax.shard_map(f, in_specs=specs, out_specs=out, check_vma=False)

    def first_index(self, rows: int, heads: int) -> tuple[jax.Array | int, jax.Array | int]:
        """The indices in the whole batch of this device's first row and head, where each device
        holds `rows` rows and `heads` heads. Call it inside `map`."""
        axes = (*axis_names(self.outer), *axis_names(self.rows))
        row = jax.lax.axis_index(axes) * rows if axes else 0
        return row, jax.lax.axis_index(self.heads) * heads if self.heads else 0
