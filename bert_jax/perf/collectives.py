"""What a compiled step sends between devices, read from its text (hlo.py).

    %all-reduce.3 = f32[1024,64]{1,0} all-reduce(%dot.7), replica_groups=[1,8]<=[8], ...

Bytes are of the whole array on one device: what an all-reduce sums, what an all-gather ends
with, what a reduce-scatter begins with. The body of a loop counts as often as it runs.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from bert_jax.perf import hlo

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")


@dataclass(frozen=True)
class Collective:
    """One instruction of one program, and how often a step runs it."""

    kind: str
    bytes: int  # of one run, on one device
    devices: int  # that take part together
    times: int = 1
    shapes: tuple[str, ...] = ()  # f32[1024,64], as the text has them

    @property
    def total(self) -> int:
        return self.bytes * self.times

    @property
    def sent(self) -> float:
        """Bytes that each device sends at the least, in any algorithm that is even over devices."""
        if self.kind == "collective-permute":
            return float(self.total)
        share = (self.devices - 1) / self.devices
        return self.total * share * (2 if self.kind == "all-reduce" else 1)


def by_kind(text: str) -> dict[str, int]:
    """Bytes of each of the five kinds in one step."""
    found = read_collectives(hlo.parse(text))
    return {kind: sum(c.total for c in found if c.kind == kind) for kind in KINDS}


def read_collectives(program: hlo.Program) -> list[Collective]:
    """The collectives of a program, for one device; those of one device alone are left out."""
    found = []
    for i, computation, times, _ in program.walk():
        kind = i.opcode.removesuffix("-start")
        if kind in KINDS:
            one = _collective(kind, i, times, program.devices, computation.name)
            found += [one] if one.devices > 1 else []
    return found


def _collective(kind: str, i: hlo.Instruction, times: int, devices: int, inside: str) -> Collective:
    together = _together(kind, i.rest, devices)
    made = list(i.results)
    if i.opcode.endswith("-start") and kind != "all-reduce":
        # (operands, results, what the hardware keeps): each operand has its result.
        made = [a for a in made if (a.dtype, a.dims) != ("u32", ())]
        made = made[len(made) // 2 :]
    size = sum(a.bytes for a in made) * (together if kind == "reduce-scatter" else 1)
    if kind == "all-reduce" and "all-reduce-scatter" in inside:
        kind = "reduce-scatter"  # how a TPU writes it: an all-reduce, then cut, in one fusion
    return Collective(kind, size, together, times, tuple(map(str, made)))


def _together(kind: str, rest: str, devices: int) -> int:
    """How many devices form a group, of the forms that XLA writes: `{{0,1},{2,3}}`,
    `[2,4]<=[8]` (groups, members), `mesh['x'=2,'y'=4] {'y'}`; nothing, or `{}`: all."""
    if kind == "collective-permute":
        return devices
    listed = hlo.first(r"replica_groups=\{\{([\d,]*)\}", rest)
    if listed is not None:
        return listed.count(",") + 1
    counted = hlo.first(r"replica_groups=\[\d+,(\d+)\]<=", rest)
    if counted is not None:
        return int(counted)
    named = re.search(r"replica_groups=@?(?:mesh)?\[([^\]]*)\][^{]*\{([^}]*)\}", rest)
    if named:
        sizes = {n: int(s) for n, s in re.findall(r"'([^']*)'=(\d+)", named[1])}
        return math.prod(sizes.get(n, 1) for n in re.findall(r"'([^']*)'", named[2]))
    return devices
