"""Settings of glibc's malloc for training on a CPU."""

from __future__ import annotations

import ctypes
import os
from glob import glob

# Option of malloc.h: (number, value).
SETTINGS = {
    "M_ARENA_MAX": (-8, 1),  # threads share one heap; blocks of other heaps end at 64 MiB
    "M_MMAP_MAX": (-4, 0),  # large blocks come from the heap too ...
    "M_TRIM_THRESHOLD": (-1, -1),  # ... which is never returned to the kernel ...
    "M_TOP_PAD": (-2, 1 << 28),  # ... and grows in large steps
}


ACCELERATORS = ("/dev/nvidia[0-9]*", "/dev/accel*", "/dev/vfio/[0-9]*", "/dev/kfd")


def tune() -> None:
    """Keep freed memory for the next training step, if the CPU computes and the C library is GNU's.

    XLA allocates a step's buffers anew each time. By default glibc returns large ones to the
    kernel, which clears every page that it hands out: a fifth of a BERT-small step on a CPU. Call
    this before jax starts its threads, each of which would have its own heap.
    """
    if os.environ.get("JAX_PLATFORMS") != "cpu" and any(glob(path) for path in ACCELERATORS):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    for number, value in SETTINGS.values():
        mallopt(number, value)
