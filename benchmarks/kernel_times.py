"""Which kernels a GPU spends its time on, from a trace of JAX's profiler."""

from __future__ import annotations

import re
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

# What XLA calls the kernels of one kind: a name, and a number for each instance.
INSTANCE = re.compile(r"(_\d+)+$")


def kernel_times(
    step: Callable[[], Any], wait: Callable[[], Any], steps: int = 3
) -> dict[str, Any]:
    """Milliseconds of the GPU per step: `total`, and `kernels`, the 20 dearest kinds with their
    number of calls."""
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            for _ in range(steps):
                step()
            wait()
        (path,) = Path(folder).rglob("*.xplane.pb")
        data = jax.profiler.ProfileData.from_file(str(path))
    seconds: Counter[str] = Counter()
    calls: Counter[str] = Counter()
    for plane in data.planes:
        if not plane.name.startswith("/device:GPU"):
            continue
        for line in plane.lines:
            if not line.name.startswith("Stream"):
                continue
            for event in line.events:
                name = INSTANCE.sub("", event.name)
                seconds[name] += event.duration_ns
                calls[name] += 1
    return {
        "total": sum(seconds.values()) / steps / 1e6,
        "kernels": [
            [name, round(ns / steps / 1e6, 3), calls[name] / steps]
            for name, ns in seconds.most_common(20)
        ],
    }
