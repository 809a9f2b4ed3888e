"""The process's memory on a CPU."""

from __future__ import annotations

import ctypes
import os
from glob import glob

# Numbers of malloc.h, and what they are set to.
SETTINGS = {
    "M_ARENA_MAX": (-8, 1),  # threads share one heap; another one's blocks end at 64 MiB
    "M_MMAP_MAX": (-4, 0),  # large blocks come from the heap too ...
    "M_TRIM_THRESHOLD": (-1, -1),  # ... which is never given back
    "M_TOP_PAD": (-2, 1 << 28),  # and grows in large steps
}


ACCELERATORS = ("/dev/nvidia[0-9]*", "/dev/accel*", "/dev/vfio/[0-9]*", "/dev/kfd")


def tune() -> None:
    """Keeps what is freed for the next step, where a CPU computes and the C library is GNU's.

    XLA asks for a step's buffers anew each time, and GNU's allocator returns large ones to the
    kernel, which hands out every page cleared: a fifth of a BERT-small step on a CPU. For a
    process that trains; before jax starts its threads, each of which would have its own heap.
    """
    if os.environ.get("JAX_PLATFORMS") != "cpu" and any(glob(path) for path in ACCELERATORS):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    for number, value in SETTINGS.values():
        mallopt(number, value)
