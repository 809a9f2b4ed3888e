"""Parse a compiled program's text (`compiled.as_text()`): instructions, and how often each runs.

    %while.11 = (s32[], f32[512,2048]{1,0:T(8,128)S(1)}) while(%tuple.14), condition=%c, body=%b

XLA's own cost analysis counts a loop's body once and custom calls not at all; here a body counts
once per iteration.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

FUSIONS = ("fusion", "fusion-start")  # a GPU starts some and does other work meanwhile


class Array(NamedTuple):
    """The type of a value: its element type and dimensions."""

    dtype: str
    dims: tuple[int, ...]
    in_fast_memory: bool = False  # of a TPU: no traffic

    @property
    def bytes(self) -> int:
        """The size of the value."""
        bits = 8 if self.dtype == "pred" else int(first_group(r"(\d+)", self.dtype) or 0)
        return math.prod(self.dims) * bits // 8

    def __str__(self) -> str:
        return f"{self.dtype}[{','.join(map(str, self.dims))}]"


@dataclass(frozen=True)
class Instruction:
    """One instruction of a compiled program."""

    name: str
    opcode: str
    results: tuple[Array, ...]  # all elements of a tuple, in order
    operands: tuple[str, ...]
    rest: str  # the attributes as text
    root: bool

    def calls(self) -> Iterator[str]:
        """Names of the computations that it runs."""
        for names in _CALLED.findall(self.rest):
            yield from (n.strip().lstrip("%") for n in names.strip("{}").split(","))


@dataclass(frozen=True)
class Computation:
    """A named sequence of instructions, such as the body of a loop."""

    name: str
    instructions: dict[str, Instruction]

    @property
    def root(self) -> Instruction:
        """The instruction that gives its result."""
        return next(i for i in self.instructions.values() if i.root)


class Execution(NamedTuple):
    """An instruction of a computation, and how often one run of the program runs it."""

    instruction: Instruction
    computation: Computation
    times: float
    fused: bool  # inside a fusion, whose inner results never reach memory


@dataclass(frozen=True)
class Program:
    """A compiled program, parsed from its text."""

    computations: dict[str, Computation]
    entry: str | None
    devices: int

    def walk(self, true_share: float | None = None) -> Iterator[Execution]:
        """Yield every instruction that runs. A loop counts once if its trip count is not in the
        text; that of a `lax.scan` always is. All branches of a conditional count or, with
        `true_share`, those of a `lax.cond` by this share of the times in which it is true."""
        if self.entry is not None:
            yield from self._walk(self.computations[self.entry], 1, False, true_share)

    def _walk(
        self, computation: Computation, times: float, fused: bool, true_share: float | None
    ) -> Iterator[Execution]:
        for i in computation.instructions.values():
            yield Execution(i, computation, times, fused)
            if i.opcode.endswith("-done"):  # it names what its -start ran
                continue
            trips = self._trip_count(i) if i.opcode == "while" else 1
            for called in i.calls():
                if called in self.computations:
                    inner, in_fusion = self.computations[called], fused or i.opcode in FUSIONS
                    runs = times * trips * _share(i, called, true_share)
                    yield from self._walk(inner, runs, in_fusion, true_share)

    def _trip_count(self, loop: Instruction) -> int:
        """Taken from the loop's attributes, or from the constant in its condition, with which a
        counter from 0 is compared."""
        known = first_group(r'"known_trip_count":\{"n":"(\d+)"', loop.rest)
        if known:
            return int(known)
        condition = self.computations.get(first_group(r"condition=%?([\w.\-]+)", loop.rest) or "")
        limits = list(self._limits(condition))
        return int(limits[0]) if len(limits) == 1 and limits[0].isdigit() else 1

    def _limits(self, computation: Computation | None) -> Iterator[str]:
        """The constants of a condition, and a minus for each operation that is no comparison."""
        for i in computation.instructions.values() if computation else ():
            if i.opcode == "constant":
                yield i.rest
            elif i.opcode not in ("parameter", "get-tuple-element", "compare", *FUSIONS):
                yield "-"
            for called in i.calls():
                yield from self._limits(self.computations.get(called))


def _share(i: Instruction, called: str, true_share: float | None) -> float:
    """How often an instruction runs a computation that it calls, as a share of its own runs."""
    branches = list(i.calls()) if i.opcode == "conditional" else []
    if true_share is None or len(branches) != 2:
        return 1
    if "true_computation" in i.rest:
        is_true = re.search(rf"true_computation=%?{re.escape(called)}\b", i.rest) is not None
    else:  # by an index, 0 for false
        is_true = called == branches[1]
    return true_share if is_true else 1 - true_share


_HEAD = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_LINE = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = (.*)$")
_OPCODE = re.compile(r" ([a-z][a-z0-9\-]*)\(")
_CALLED = re.compile(
    r"\b(?:body|calls|to_apply|branch_computations|true_computation|false_computation|"
    r"called_computations)=(\{[^}]*\}|%?[\w.\-]+)"
)
_ARRAY = re.compile(r"\b([a-z]\w*)\[([\d,<=]*)\](?:\{([^}]*)\})?")


def parse_hlo(text: str) -> Program:
    """The program whose text `compiled.as_text()` returned."""
    computations: dict[str, Computation] = {}
    entry, computation = None, None
    for line in text.splitlines():
        head = _HEAD.match(line)
        if head:
            computation = Computation(head[2], {})
            computations[head[2]] = computation
            entry = head[2] if head[1] else entry
        elif line.startswith("}"):
            computation = None
        elif computation is not None:
            instruction = _instruction(line)
            if instruction:
                computation.instructions[instruction.name] = instruction
    devices = int(first_group(r"num_partitions=(\d+)", text) or 1)
    devices *= int(first_group(r"replica_count=(\d+)", text) or 1)
    return Program(computations, entry, devices)


def _instruction(line: str) -> Instruction | None:
    parts = _LINE.match(line)
    opcode = parts and _OPCODE.search(parts[3])
    if not parts or not opcode:
        return None
    root, name, rest = parts.groups()
    results = tuple(_array(*a) for a in _ARRAY.findall(rest[: opcode.start()]))
    end = _closing_parenthesis(rest, opcode.end())
    arguments, attributes = rest[opcode.end() : end], rest[end + 1 :]
    if opcode[1] in ("constant", "parameter"):
        return Instruction(name, opcode[1], results, (), arguments, bool(root))
    operands = tuple(re.findall(r"%([\w.\-]+)", arguments))
    return Instruction(name, opcode[1], results, operands, attributes, bool(root))


def _closing_parenthesis(text: str, start: int) -> int:
    depth = 1
    for i in range(start, len(text)):
        depth += (text[i] == "(") - (text[i] == ")")
        if not depth:
            return i
    return len(text)


def _array(dtype: str, dims: str, layout: str) -> Array:
    sizes = tuple(int(n.lstrip("<=")) for n in dims.split(",") if n)
    return Array(dtype, sizes, bool(re.search(r"S\([1-9]\)", layout)))


def first_group(pattern: str, text: str) -> str | None:
    """The first group of a pattern's first match; None without a match."""
    match = re.search(pattern, text)
    return match[1] if match else None
