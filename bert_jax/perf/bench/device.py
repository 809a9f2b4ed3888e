"""Limits of a device: FLOP/s of matrix products, and memory."""

from __future__ import annotations

import os
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from bert_jax.perf.bench.timer import timed
from bert_jax.perf.hardware import peak_flops

SIZE = 2048  # of the square matrices whose product is timed
FIRST_PRODUCTS = 5  # timed before the first round


class Peak(NamedTuple):
    """FLOP/s of one device."""

    flops: float
    source: str  # published or measured


def published_peak(device: Any, dtype: str) -> Peak | None:
    """The published figure of a device; None if `hardware.PEAKS` does not list it."""
    peaks = peak_flops(device.device_kind)
    if peaks is None:
        return None
    bfloat16, float32 = peaks
    return Peak(bfloat16 if dtype == "bfloat16" else float32, "published")


class PeakMeter:
    """The peak of a device: published, or else measured again and again during a run.

    Other work on the machine only slows a product down. So the best of many products, spread
    over the same time as the timed steps, is the estimate with the least error.
    """

    def __init__(self, device: Any, dtype: str) -> None:
        self._published = published_peak(device, dtype)
        self._seconds = float("inf")  # of the fastest product
        if self._published is None:
            self._x = jax.device_put(jnp.ones((SIZE, SIZE), dtype), device)
            self._product = jax.jit(jnp.matmul)
            jax.block_until_ready(self._product(self._x, self._x))  # compiles
            for _ in range(FIRST_PRODUCTS):
                self.measure()

    def measure(self) -> None:
        """Time one product of two square matrices, unless the peak is published."""
        if self._published is None:
            seconds = timed(lambda: jax.block_until_ready(self._product(self._x, self._x)))
            self._seconds = min(self._seconds, seconds)

    def best(self) -> Peak:
        """The published peak, or the highest one measured so far."""
        return self._published or Peak(2 * SIZE**3 / self._seconds, "measured")


def memory_limit(device: Any) -> int:
    """Bytes that a step may use: the limit of the device; on the CPU the memory of the machine."""
    stats = device.memory_stats() or {}
    if "bytes_limit" in stats:
        return int(stats["bytes_limit"])
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def memory_peak(devices: list[Any]) -> int | None:
    """The most bytes in use on any device since the process started; None on the CPU, which does
    not report them."""
    stats = [d.memory_stats() or {} for d in devices]
    peaks = [s["peak_bytes_in_use"] for s in stats if "peak_bytes_in_use" in s]
    return max(peaks) if peaks else None
