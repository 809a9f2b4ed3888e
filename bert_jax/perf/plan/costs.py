"""What one chip does in a step, read from the compiled text: products, traffic, messages.

XLA's `cost_analysis` counts a loop's body once and a custom call not at all, so the text is walked
(hlo.py): every instruction as often as it runs, a Pallas kernel by the estimate it brings along.

    flops   matrix products alone; two per multiply-add
    bytes   what instructions read from memory and write to it; what lies in the chip's fast
            memory, or stays inside of a fusion, costs nothing
"""

from __future__ import annotations

import math
import re
from typing import NamedTuple

import numpy as np

from bert_jax.perf import hlo
from bert_jax.perf.hlo import Array, Computation, Instruction, Program

FREE = (  # opcodes that move nothing, or whose parts are counted where they stand
    *("parameter", "constant", "get-tuple-element", "tuple", "bitcast", "while", "conditional"),
    *("call", "after-all", "partition-id", "replica-id", "iota", "broadcast", "async-done"),
    *("copy-done", "slice-done", "all-reduce-done", "all-gather-done", "collective-permute-done"),
    *("reduce-scatter-done", "opt-barrier", "add-dependency"),
)
NOTHING = ("ConcatBitcast", "AllocateBuffer")  # custom calls that name memory, no more
VIEWS = ("dynamic-slice", "slice", "gather")  # of an array, of which they read a part


class Costs(NamedTuple):
    flops: float
    bytes: float
    kernels: int  # calls of kernels whose estimates are in the sums
    unknown: int  # calls of kernels that bring none: their products are not counted


def read_costs(program: Program) -> Costs:
    flops = moved = kernels = unknown = 0
    for i, computation, times, fused in program.walk():
        if i.opcode in ("dot", "convolution"):
            flops += times * products(i, computation)
        if i.opcode == "custom-call" and "tpu_custom_call" in i.rest:
            estimate = _estimate(i.rest)
            kernels, unknown = kernels + times * bool(estimate), unknown + times * (not estimate)
            flops += times * estimate.get("flops", 0)
        if not fused:
            moved += times * traffic(i, computation, program)
    return Costs(float(flops), float(moved), kernels, unknown)


# ---- products


def products(i: Instruction, computation: Computation) -> int:
    """Floating-point operations of a dot or of the convolution that a TPU makes of it."""
    left, right = (computation.instructions[o].results[0] for o in i.operands[:2])
    out = i.results[0]
    if i.opcode == "dot":
        over = (hlo.first(r"lhs_contracting_dims=\{([\d,]*)\}", i.rest) or "").split(",")
        return 2 * math.prod(out.dims) * math.prod(left.dims[int(d)] for d in over if d)
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", i.rest)
    assert labels, i.rest
    lhs, rhs, made = (
        dict(zip(s, a.dims, strict=True))
        for s, a in zip(labels.groups(), (left, right, out), strict=True)
    )
    spatial = sorted(d for d in lhs if d.isdigit())
    window = _window(i.rest, len(spatial))
    met = math.prod(
        _met(lhs[d], rhs[d], made[d], *(w[n] for w in window)) for n, d in enumerate(spatial)
    )
    return 2 * rhs["i"] * made["f"] * made["b"] * met


def _window(rest: str, n: int) -> tuple[list[int], ...]:
    """Stride, low padding and the two dilations, each of `n` spatial dimensions."""
    text = hlo.first(r"window=\{([^}]*)\}", rest) or ""

    def numbers(name: str, default: int) -> list[int]:
        given = hlo.first(rf"\b{name}=(\S+)", text)
        return [int(x.split("_")[0]) for x in given.split("x")] if given else [default] * n

    return (
        numbers("stride", 1),
        numbers("pad", 0),
        numbers("lhs_dilate", 1),
        numbers("rhs_dilate", 1),
    )


def _met(size: int, kernel: int, out: int, stride: int, pad: int, left: int, right: int) -> int:
    """How many (output, kernel) pairs of one dimension fall on an element, not on a hole or on
    padding: a batched dot is written with dilations that make all but one of them do."""
    at = np.arange(out)[:, None] * stride + np.arange(kernel) * right - pad
    return int(((at >= 0) & (at <= (size - 1) * left) & (at % left == 0)).sum())


def _estimate(rest: str) -> dict[str, int]:
    """What a Pallas kernel says of itself: `pl.CostEstimate`."""
    text = hlo.first(r'"cost_estimate":\{([^}]*)\}', rest.replace("\\", "")) or ""
    return {name: int(n) for name, n in re.findall(r'"(\w+)":"?(\d+)"?', text)}


# ---- traffic


def traffic(i: Instruction, computation: Computation, program: Program) -> int:
    """Bytes that an instruction moves between the chip and its memory."""
    if i.opcode in FREE or (i.opcode == "custom-call" and any(t in i.rest for t in NOTHING)):
        return 0
    if i.opcode in ("copy-start", "slice-start"):  # (from, to, ...): what `to` holds is moved
        source, target = i.results[:2]
        return sum(target.bytes for a in (source, target) if not a.near)
    if i.opcode == "custom-call" and (known := _estimate(i.rest).get("bytes_accessed")):
        return known
    made = (computation.instructions.get(name) for name in i.operands)
    arrays = [m.results[0] if m and len(m.results) == 1 else None for m in made]
    if i.opcode == "fusion":
        inside = program.computations[next(i.calls())]
        parts = [
            _read(a, _parameter(n, inside), inside, program) for n, a in enumerate(arrays) if a
        ]
        return sum(parts) + sum(_written(r, inside, program) for r in _ends(inside.root, inside))
    alone = Computation("", {i.name: i})
    parts = [
        _read(a, name, alone, program) for a, name in zip(arrays, i.operands, strict=True) if a
    ]
    return sum(parts) + _written(i, computation, program)


def _read(array: Array, name: str, computation: Computation, program: Program) -> int:
    """What is read of an array by those who use it under this name."""
    return 0 if array.near else min(array.bytes, _used(array, name, computation, program))


def _used(array: Array, name: str, computation: Computation, program: Program) -> int:
    total = 0
    for user in computation.instructions.values():
        for n, operand in enumerate(user.operands):
            if operand != name:
                continue
            if user.opcode == "bitcast":
                total += _used(array, user.name, computation, program)
            elif user.opcode == "fusion" and computation.name:
                inside = program.computations[next(user.calls())]
                total += _used(array, _parameter(n, inside), inside, program)
            elif n == 0 and user.opcode in VIEWS:
                total += user.results[0].bytes
            elif not (n == 0 and user.opcode == "dynamic-update-slice"):  # else written in place
                total += array.bytes
    return total


def _written(i: Instruction, computation: Computation, program: Program) -> int:
    """Of one result; an update in place writes the update alone."""
    if all(a.near for a in i.results):
        return 0
    source = i
    while source.opcode in ("bitcast", "fusion"):
        if source.opcode == "fusion":
            computation = program.computations[next(source.calls())]
            source = computation.root
        else:
            source = computation.instructions[source.operands[0]]
    if source.opcode == "dynamic-update-slice":
        return computation.instructions[source.operands[1]].results[0].bytes
    return sum(a.bytes for a in i.results if not a.near)


def _ends(root: Instruction, computation: Computation) -> list[Instruction]:
    if root.opcode != "tuple":
        return [root]
    return [computation.instructions[name] for name in root.operands]


def _parameter(n: int, computation: Computation) -> str:
    found = computation.instructions.values()
    return next(i.name for i in found if i.opcode == "parameter" and i.rest == str(n))
