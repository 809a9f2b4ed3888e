"""Devices of TPU slices and GPU nodes, described without having one."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from bert_jax.perf.hardware import CHIPS, GPUS, Chip
from bert_jax.perf.plan.gpu_topologies import describe_gpus
from bert_jax.utils import extras
from bert_jax.utils.errors import first_line


class Topology(NamedTuple):
    name: str  # v5e:4x4
    chip: Chip
    devices: list[Any]
    hosts: int = 1  # of GPUs; chips of a slice are linked whatever their host

    @property
    def memory_limit(self) -> int | None:
        """Bytes that a step may take; None if the compiler decides. XLA refuses no program for a
        GPU, and JAX reserves .75 of its memory unless it is told otherwise."""
        return round(0.75 * self.chip.memory) if self.chip.name in _GPU_NAMES else None


_GPU_NAMES = {gpu.name for gpu in GPUS.values()}


def describe_topology(name: str) -> Topology:
    """The slice of a name such as v5e:4x4, or the GPUs of one such as h100:8 or h100:2x8.
    ValueError: it does not exist, or the package that describes it is missing."""
    kind, _, shape = name.partition(":")
    if kind in GPUS:
        return Topology(name, *describe_gpus(name))
    chip = CHIPS.get(kind)
    if chip is None or not re.fullmatch(r"\d+(x\d+)*", shape):
        known = ", ".join(e for c in [*CHIPS.values(), *GPUS.values()] for e in c.examples)
        raise ValueError(f"--topology {name}: expected a TPU slice or GPUs, such as {known}")
    if importlib.util.find_spec("libtpu") is None:
        raise extras.missing(f"--topology {name}", "libtpu (Linux; no TPU)", "tpu")
    import jax
    from jax.experimental import topologies

    # Both cores of a v4 or v5p chip form one device, as on real machines.
    options: dict[str, Any] = {"chip_config_name": "megacore"} if kind in ("v4", "v5p") else {}
    if set(shape.split("x")) == {"1"}:  # a full host has more chips
        options["chips_per_host_bounds"] = [1, 1, 1]
    try:
        with _silent_stderr():
            description = topologies.get_topology_desc(
                platform="tpu", topology_name=name, **options
            )
    except jax.errors.JaxRuntimeError as e:
        if "INVALID_ARGUMENT" not in str(e):
            raise
        raise ValueError(
            f"--topology {name}: libtpu does not know this slice ({first_line(e)}); "
            f"expected one such as {', '.join(chip.examples)}"
        ) from None
    chips = len(description.devices)
    if chips > chip.max_chips:
        raise ValueError(
            f"--topology {name} has {chips} chips, but the largest {kind} slice has "
            f"{chip.max_chips}: a plan over several slices is not supported"
        )
    return Topology(name, chip, list(description.devices))


@contextlib.contextmanager
def _silent_stderr() -> Iterator[None]:
    """Discard what is written to file descriptor 2: libtpu's messages about the missing TPU."""
    stderr, devnull = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, 2)
    try:
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(devnull)
