"""FLOPs and memory traffic of a step on one chip, read from the compiled program's text.

XLA's `cost_analysis` counts a loop's body once and a custom call not at all. Here every
instruction counts as often as it runs (hlo.py), a Pallas kernel for TPUs by its own estimate, and
attention on GPUs, cuDNN's or ours, by its shapes, as over full rows without a window.

    flops   matrix products alone; two per multiply-add
    bytes   what instructions read from memory and write to it; arrays in the chip's fast memory
            and inside a fusion cost nothing
"""

from __future__ import annotations

import math
import re
from typing import NamedTuple

import numpy as np

from bert_jax.perf import hlo
from bert_jax.perf.hlo import Array, Computation, Instruction, Program

FREE_OPCODES = (  # they move nothing, or their parts are counted on their own
    *("parameter", "constant", "get-tuple-element", "tuple", "bitcast", "while", "conditional"),
    *(
        "call",
        "after-all",
        "partition-id",
        "replica-id",
        "iota",
        "broadcast",
        "async-done",
        "fusion-done",
    ),
    *("copy-done", "slice-done", "all-reduce-done", "all-gather-done", "collective-permute-done"),
    *("reduce-scatter-done", "opt-barrier", "add-dependency"),
)
FREE_CALLS = ("ConcatBitcast", "AllocateBuffer")  # custom calls that only name memory
SLICES = ("dynamic-slice", "slice", "gather")  # they read a part of their first operand


class ProgramCosts(NamedTuple):
    flops: float
    bytes: float
    kernels: int  # calls of kernels with an estimate, which is in the sums
    unknown: int  # calls of kernels without one, whose products are not counted


def read_costs(program: Program, global_share: float | None = None) -> ProgramCosts:
    """The costs of one run of a program on one chip. `global_share`: of the layers, those that
    attend to whole rows, if the program chooses between them and local ones."""
    flops = traffic = kernels = unknown = 0.0
    for i, computation, times, fused in program.walk(global_share):
        if i.opcode in ("dot", "convolution"):
            flops += times * product_flops(i, computation)
        if i.opcode == "custom-call" and "tpu_custom_call" in i.rest:
            estimate = _estimate(i.rest)
            kernels, unknown = kernels + times * bool(estimate), unknown + times * (not estimate)
            flops += times * estimate.get("flops", 0)
        if products := _gpu_attention_products(i):
            b, length, h, width = _gpu_queries(i, computation).dims
            kernels += times
            flops += times * products * 2 * b * h * length**2 * width
        if not fused:
            traffic += times * traffic_bytes(i, computation, program)
    return ProgramCosts(flops, traffic, round(kernels), round(unknown))


# ---- products


def product_flops(i: Instruction, computation: Computation) -> int:
    """FLOPs of a dot, or of the convolution that the TPU compiler makes of it."""
    left, right = (computation.instructions[o].results[0] for o in i.operands[:2])
    out = i.results[0]
    if i.opcode == "dot":
        text = hlo.first_group(r"lhs_contracting_dims=\{([\d,]*)\}", i.rest) or ""
        contracted = math.prod(left.dims[int(d)] for d in text.split(",") if d)
        return 2 * math.prod(out.dims) * contracted
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", i.rest)
    assert labels, i.rest
    lhs, rhs, result = (
        dict(zip(s, a.dims, strict=True))
        for s, a in zip(labels.groups(), (left, right, out), strict=True)
    )
    spatial = sorted(d for d in lhs if d.isdigit())
    window = _window(i.rest, len(spatial))
    pairs = math.prod(
        _valid_pairs(lhs[d], rhs[d], result[d], *(w[n] for w in window))
        for n, d in enumerate(spatial)
    )
    return 2 * rhs["i"] * result["f"] * result["b"] * pairs


def _window(rest: str, n: int) -> tuple[list[int], ...]:
    """Stride, low padding, left and right dilation, each for `n` spatial dimensions."""
    text = hlo.first_group(r"window=\{([^}]*)\}", rest) or ""

    def numbers(name: str, default: int) -> list[int]:
        sizes = hlo.first_group(rf"\b{name}=(\S+)", text)
        return [int(x.split("_")[0]) for x in sizes.split("x")] if sizes else [default] * n

    return (
        numbers("stride", 1),
        numbers("pad", 0),
        numbers("lhs_dilate", 1),
        numbers("rhs_dilate", 1),
    )


def _valid_pairs(
    size: int, kernel: int, out: int, stride: int, pad: int, left: int, right: int
) -> int:
    """Number of (output, kernel) pairs of one dimension that read an element, not a hole or
    padding. The compiler writes a batched dot with dilations that leave one pair per output."""
    position = np.arange(out)[:, None] * stride + np.arange(kernel) * right - pad
    valid = (position >= 0) & (position <= (size - 1) * left) & (position % left == 0)
    return int(valid.sum())


# Matrix products of l x l x k of an attention kernel for GPUs, by a part of its call's text. The
# backward pass recomputes the logits; in ours, both kernels do, and the probabilities' gradient.
GPU_ATTENTION = {
    r"__cudnn\$fmha\w*Backward": 5,
    r"__cudnn\$fmha": 2,
    "/attention_attend/": 2,
    "/attention_key_gradients/": 4,
    "/attention_query_gradients/": 3,
}


def _gpu_attention_products(i: Instruction) -> int:
    """How many products of l x l x k the call computes; 0 if it is no attention on a GPU."""
    if i.opcode != "custom-call" or ("__cudnn" not in i.rest and "gpu.triton" not in i.rest):
        return 0
    return next((n for part, n in GPU_ATTENTION.items() if re.search(part, i.rest)), 0)


def _gpu_queries(i: Instruction, computation: Computation) -> Array:
    """The queries [b l h k]: the first operand with four axes."""
    operands = (computation.instructions[name].results for name in i.operands)
    return next(r[0] for r in operands if len(r) == 1 and len(r[0].dims) == 4)


def _estimate(rest: str) -> dict[str, int]:
    """The `pl.CostEstimate` of a Pallas kernel; empty without one."""
    text = hlo.first_group(r'"cost_estimate":\{([^}]*)\}', rest.replace("\\", "")) or ""
    return {name: int(n) for name, n in re.findall(r'"(\w+)":"?(\d+)"?', text)}


# ---- traffic


def traffic_bytes(i: Instruction, computation: Computation, program: Program) -> int:
    """Bytes that an instruction moves between the chip and its memory."""
    if i.opcode in FREE_OPCODES or (
        i.opcode == "custom-call" and any(t in i.rest for t in FREE_CALLS)
    ):
        return 0
    if i.opcode in ("copy-start", "slice-start"):  # (source, target, ...)
        source, target = i.results[:2]
        return sum(target.bytes for a in (source, target) if not a.in_fast_memory)
    if i.opcode == "custom-call" and (known := _estimate(i.rest).get("bytes_accessed")):
        return known
    operands = (computation.instructions.get(name) for name in i.operands)
    arrays = [o.results[0] if o and len(o.results) == 1 else None for o in operands]
    if i.opcode in hlo.FUSIONS:
        body = program.computations[next(i.calls())]
        read = [
            _bytes_read(a, _parameter_name(n, body), body, program)
            for n, a in enumerate(arrays)
            if a
        ]
        written = [_bytes_written(output, body, program) for output in _outputs(body)]
        return sum(read) + sum(written)
    single = Computation("", {i.name: i})
    read = [
        _bytes_read(a, name, single, program)
        for a, name in zip(arrays, i.operands, strict=True)
        if a
    ]
    return sum(read) + _bytes_written(i, computation, program)


def _bytes_read(array: Array, name: str, computation: Computation, program: Program) -> int:
    """Bytes of an array that the users of its name in a computation read."""
    if array.in_fast_memory:
        return 0
    return min(array.bytes, _bytes_used(array, name, computation, program))


def _bytes_used(array: Array, name: str, computation: Computation, program: Program) -> int:
    total = 0
    for user in computation.instructions.values():
        for n, operand in enumerate(user.operands):
            if operand != name:
                continue
            if user.opcode == "bitcast":
                total += _bytes_used(array, user.name, computation, program)
            elif user.opcode in hlo.FUSIONS and computation.name:
                body = program.computations[next(user.calls())]
                total += _bytes_used(array, _parameter_name(n, body), body, program)
            elif n == 0 and user.opcode in SLICES:
                total += user.results[0].bytes
            elif not (n == 0 and user.opcode == "dynamic-update-slice"):  # written in place
                total += array.bytes
    return total


def _bytes_written(i: Instruction, computation: Computation, program: Program) -> int:
    """Bytes of the results of an instruction; an update in place writes the update alone."""
    if all(a.in_fast_memory for a in i.results):
        return 0
    source = i
    while source.opcode in ("bitcast", *hlo.FUSIONS):
        if source.opcode in hlo.FUSIONS:
            computation = program.computations[next(source.calls())]
            source = computation.root
        else:
            source = computation.instructions[source.operands[0]]
    if source.opcode == "dynamic-update-slice":
        return computation.instructions[source.operands[1]].results[0].bytes
    return sum(a.bytes for a in i.results if not a.in_fast_memory)


def _outputs(computation: Computation) -> list[Instruction]:
    root = computation.root
    if root.opcode != "tuple":
        return [root]
    return [computation.instructions[name] for name in root.operands]


def _parameter_name(n: int, computation: Computation) -> str:
    instructions = computation.instructions.values()
    return next(i.name for i in instructions if i.opcode == "parameter" and i.rest == str(n))
