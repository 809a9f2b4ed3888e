"""The collectives of a compiled step and their bytes, read from its text (hlo.py).

    %all-reduce.3 = f32[1024,64]{1,0} all-reduce(%dot.7), replica_groups=[1,8]<=[8], ...

Bytes are those of the whole array on one device: the array that an all-reduce sums, the result of
an all-gather, the operand of a reduce-scatter. The body of a loop counts once per iteration.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from bert_jax.perf import hlo

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")


@dataclass(frozen=True)
class Collective:
    """One collective instruction, and how often a step runs it."""

    kind: str
    bytes: int  # per run and device
    devices: int  # in one group
    times: int = 1
    shapes: tuple[str, ...] = ()  # such as f32[1024,64]

    @property
    def total_bytes(self) -> int:
        """The bytes of all its executions in one step."""
        return self.bytes * self.times

    @property
    def sent_bytes(self) -> float:
        """Bytes that each device sends at least, in any algorithm that is even over devices."""
        if self.kind == "collective-permute":
            return float(self.total_bytes)
        share = (self.devices - 1) / self.devices
        return self.total_bytes * share * (2 if self.kind == "all-reduce" else 1)


def bytes_by_kind(text: str) -> dict[str, int]:
    """Bytes per step and device of each of the five kinds, from a program's text."""
    collectives = read_collectives(hlo.parse_hlo(text))
    return {kind: sum(c.total_bytes for c in collectives if c.kind == kind) for kind in KINDS}


def read_collectives(program: hlo.Program) -> list[Collective]:
    """The collectives of a program, except those whose groups have one device."""
    collectives = []
    for i, computation, times, _ in program.walk():
        kind = i.opcode.removesuffix("-start")
        if kind in KINDS:
            collective = _collective(kind, i, times, program.devices, computation.name)
            collectives += [collective] if collective.devices > 1 else []
    return collectives


def _collective(
    kind: str, i: hlo.Instruction, times: int, devices: int, computation: str
) -> Collective:
    group_size = _group_size(kind, i.rest, devices)
    arrays = list(i.results)
    if i.opcode.endswith("-start") and kind != "all-reduce":
        # (operands, results, contexts of the hardware): as many results as operands
        arrays = [a for a in arrays if (a.dtype, a.dims) != ("u32", ())]
        arrays = arrays[len(arrays) // 2 :]
    size = sum(a.bytes for a in arrays) * (group_size if kind == "reduce-scatter" else 1)
    if kind == "all-reduce" and "all-reduce-scatter" in computation:
        kind = "reduce-scatter"  # on a TPU: a fusion of an all-reduce and a slice of its result
    return Collective(kind, size, group_size, times, tuple(map(str, arrays)))


def _group_size(kind: str, rest: str, devices: int) -> int:
    """Number of devices in a group, in the notations of XLA: `{{0,1},{2,3}}`, `[2,4]<=[8]`
    (groups, members), `mesh['x'=2,'y'=4] {'y'}`; without groups, or with `{}`, all devices."""
    if kind == "collective-permute":
        return devices
    listed = hlo.first_group(r"replica_groups=\{\{([\d,]*)\}", rest)
    if listed is not None:
        return listed.count(",") + 1
    counted = hlo.first_group(r"replica_groups=\[\d+,(\d+)\]<=", rest)
    if counted is not None:
        return int(counted)
    named = re.search(r"replica_groups=@?(?:mesh)?\[([^\]]*)\][^{]*\{([^}]*)\}", rest)
    if named:
        sizes = {n: int(s) for n, s in re.findall(r"'([^']*)'=(\d+)", named[1])}
        return math.prod(sizes.get(n, 1) for n in re.findall(r"'([^']*)'", named[2]))
    return devices
