"""What a device can do at most: matrix products, and memory."""

from __future__ import annotations

import os
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from bert_jax.bench.clock import timed

TFLOPS = 1e12
# device_kind begins with -> (bf16, float32 as JAX multiplies it by default) without sparsity, in
# TFLOP/s per device of JAX. GPU: NVIDIA's data sheets, TF32 for float32; TPU: Google's, where
# float32 is rounded to bfloat16 for products.
PUBLISHED: dict[str, tuple[float, float]] = {
    "NVIDIA B200": (2250, 1125),
    "NVIDIA GH200": (989.4, 494.7),
    "NVIDIA H200": (989.4, 494.7),
    "NVIDIA H100 PCIe": (756, 378),
    "NVIDIA H100": (989.4, 494.7),
    "NVIDIA A100": (312, 156),
    "NVIDIA L40S": (362, 183),
    "NVIDIA L4": (121, 60.5),
    "NVIDIA A10G": (70, 35),
    "TPU v2": (22.5, 22.5),
    "TPU v3": (61.5, 61.5),
    "TPU v4": (275, 275),
    "TPU v5 lite": (197, 197),
    "TPU v5": (459, 459),
    "TPU v6": (918, 918),
}


class Peak(NamedTuple):
    """FLOP/s of one device."""

    flops: float
    source: str  # published, or measured in this run


def peak(device: Any, dtype: str) -> Peak:
    """The published figure of a known device, else what a large matrix product reaches here."""
    for kind in sorted(PUBLISHED, key=len, reverse=True):
        if device.device_kind.startswith(kind):
            bf16, float32 = PUBLISHED[kind]
            return Peak((bf16 if dtype == "bfloat16" else float32) * TFLOPS, "published")
    return Peak(measured(device, dtype), "measured")


def measured(device: Any, dtype: str, size: int = 2048, times: int = 5) -> float:
    """FLOP/s of the best of some products of two square matrices."""
    x = jax.device_put(jnp.ones((size, size), dtype), device)
    product = jax.jit(jnp.matmul)
    jax.block_until_ready(product(x, x))
    best = min(timed(lambda: jax.block_until_ready(product(x, x))) for _ in range(times))
    return 2 * size**3 / best


def memory(device: Any) -> int:
    """Bytes that a step may use: the device's own limit; on the CPU the machine's memory."""
    stats = device.memory_stats() or {}
    if "bytes_limit" in stats:
        return int(stats["bytes_limit"])
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def memory_peak(devices: list[Any]) -> int | None:
    """The most that any of these devices has held since the process began, where they tell."""
    stats = [d.memory_stats() or {} for d in devices]
    peaks = [s["peak_bytes_in_use"] for s in stats if "peak_bytes_in_use" in s]
    return max(peaks) if peaks else None


def step_memory(compiled: Any) -> dict[str, int]:
    """Bytes on one device while a compiled step runs, by what they are for. What is donated
    counts once."""
    m = compiled.memory_analysis()
    parts = {
        "arguments": m.argument_size_in_bytes,
        "outputs": m.output_size_in_bytes - m.alias_size_in_bytes,
        "temporaries": m.temp_size_in_bytes,
        "code": m.generated_code_size_in_bytes,
    }
    return {**parts, "peak": sum(parts.values())}
