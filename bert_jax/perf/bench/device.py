"""What a device can do at most: matrix products, and memory."""

from __future__ import annotations

import os
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from bert_jax.perf.bench.timer import timed
from bert_jax.perf.hardware import PEAKS


class Peak(NamedTuple):
    """FLOP/s of one device."""

    flops: float
    source: str  # published, or measured in this run


def peak(device: Any, dtype: str) -> Peak:
    """The published figure of a known device, else what a large matrix product reaches here."""
    for kind in sorted(PEAKS, key=len, reverse=True):
        if device.device_kind.startswith(kind):
            bf16, float32 = PEAKS[kind]
            return Peak(bf16 if dtype == "bfloat16" else float32, "published")
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
