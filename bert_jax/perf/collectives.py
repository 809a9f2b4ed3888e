"""The collectives of a compiled step and their bytes, read from its text (hlo.py).

    %all-reduce.3 = f32[1024,64]{1,0} all-reduce(%dot.7), replica_groups=[1,8]<=[8], ...

Bytes are those of the whole array on one device: the array that an all-reduce sums, the result of
an all-gather, the operand of a reduce-scatter. The body of a loop counts once per iteration.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from bert_jax.perf import hlo

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")


@dataclass(frozen=True)
class Collective:
    """One collective instruction, and how often a step runs it."""

    kind: str
    bytes: int  # per run and device
    devices: int  # in one group
    times: int = 1
    hosts: int = 1  # that one group spans
    shapes: tuple[str, ...] = ()  # such as f32[1024,64]

    @property
    def total_bytes(self) -> int:
        """The bytes of all its executions in one step."""
        return self.bytes * self.times

    @property
    def sent_bytes(self) -> float:
        """Bytes that each device sends at least to others of its slice or host, in any algorithm
        that is even over devices; between hosts only what the network must carry is sent there."""
        if self.kind == "collective-permute":
            return float(self.total_bytes if self.hosts == 1 else 0)
        return self._share(self.devices // self.hosts)

    @property
    def network_bytes(self) -> float:
        """Bytes that each device sends at least to other hosts: the devices of a host share what
        leaves it."""
        if self.kind == "collective-permute":
            return float(self.total_bytes if self.hosts > 1 else 0)
        return self._share(self.hosts) / (self.devices // self.hosts)

    def _share(self, members: int) -> float:
        passes = 2 if self.kind == "all-reduce" else 1
        return self.total_bytes * passes * (members - 1) / members


def bytes_by_kind(text: str) -> dict[str, int]:
    """Bytes per step and device of each of the five kinds, from a program's text."""
    collectives = read_collectives(hlo.parse_hlo(text))
    return {kind: sum(c.total_bytes for c in collectives if c.kind == kind) for kind in KINDS}


def read_collectives(program: hlo.Program, hosts: int = 1) -> list[Collective]:
    """The collectives of a program, except those whose groups have one device. With several
    `hosts`, devices are numbered host by host."""
    collectives = []
    for i, computation, times, _ in program.walk():
        kind = i.opcode.removesuffix("-start")
        if kind in KINDS:
            collective = _collective(
                kind, i, round(times), program.devices, computation.name, hosts
            )
            collectives += [collective] if collective.devices > 1 else []
    return collectives


def _collective(
    kind: str, i: hlo.Instruction, times: int, devices: int, computation: str, hosts: int
) -> Collective:
    group = _first_group(kind, i.rest, devices)
    group_size = len(group)
    arrays = list(i.results)
    if i.opcode.endswith("-start"):
        # Results alone, or (operands, results, contexts of the hardware): as many as operands.
        arrays = [a for a in arrays if (a.dtype, a.dims) != ("u32", ())]
        arrays = arrays[-len(i.operands) :]
    size = sum(a.bytes for a in arrays) * (group_size if kind == "reduce-scatter" else 1)
    if kind == "all-reduce" and "all-reduce-scatter" in computation:
        kind = "reduce-scatter"  # on a TPU: a fusion of an all-reduce and a slice of its result
    spanned = len({member // (devices // hosts) for member in group})
    return Collective(kind, size, group_size, times, spanned, tuple(map(str, arrays)))


def _first_group(kind: str, rest: str, devices: int) -> list[int]:
    """The devices of the first group, in the notations of XLA: `{{0,1},{2,3}}`; `[2,4]<=[8]`
    (groups, members) with or without a transpose, `[4,2]<=[2,4]T(1,0)`; `mesh['x'=2,'y'=4] {'y'}`.
    Without groups, or with `{}`, all devices."""
    everyone = list(range(devices))
    if kind == "collective-permute":
        return everyone
    listed = hlo.first_group(r"replica_groups=\{\{([\d,]*)\}", rest)
    if listed is not None:
        return [int(n) for n in listed.split(",")]
    counted = re.search(r"replica_groups=\[\d+,(\d+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", rest)
    if counted:
        members, dims, axes = counted.groups()
        order = np.arange(devices).reshape([int(n) for n in dims.split(",")])
        order = order.transpose([int(n) for n in axes.split(",")]) if axes else order
        return order.reshape(-1, int(members))[0].tolist()
    named = re.search(r"replica_groups=@?(?:mesh)?\[([^\]]*)\][^{]*\{([^}]*)\}", rest)
    if named:
        sizes = {n: int(s) for n, s in re.findall(r"'([^']*)'=(\d+)", named[1])}
        axes = re.findall(r"'([^']*)'", named[2])
        index = tuple(slice(None) if name in axes else 0 for name in sizes)
        return np.arange(devices).reshape([*sizes.values()])[index].reshape(-1).tolist()
    return everyone
