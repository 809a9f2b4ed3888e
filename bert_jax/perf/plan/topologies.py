"""TPU slices that nobody needs to own, described by libtpu."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from bert_jax.perf.hardware import CHIPS, Chip


class Topology(NamedTuple):
    name: str  # v5e:4x4
    chip: Chip
    devices: list[Any]


def describe_topology(name: str) -> Topology:
    """ValueError: no such slice, or libtpu is not installed."""
    kind, _, shape = name.partition(":")
    chip = CHIPS.get(kind)
    if chip is None or not re.fullmatch(r"\d+(x\d+)*", shape):
        known = ", ".join(e for c in CHIPS.values() for e in c.examples)
        raise ValueError(f"--topology {name}: expected a TPU slice, such as {known}")
    if importlib.util.find_spec("libtpu") is None:
        raise ValueError(
            "plan compiles with libtpu, which is not installed: pip install 'bert-jax[tpu]' "
            "(Linux; no TPU is needed)"
        )
    import jax
    from jax.experimental import topologies

    # Both cores of a v4 or v5p chip are one device, as on the machines themselves.
    how: dict[str, Any] = {"chip_config_name": "megacore"} if kind in ("v4", "v5p") else {}
    if set(shape.split("x")) == {"1"}:  # less than a usual host has
        how["chips_per_host_bounds"] = [1, 1, 1]
    try:
        with _quiet():
            found = topologies.get_topology_desc(platform="tpu", topology_name=name, **how)
    except jax.errors.JaxRuntimeError as e:
        if "INVALID_ARGUMENT" not in str(e):
            raise
        raise ValueError(
            f"--topology {name}: libtpu knows no such slice ({str(e).splitlines()[0]}): "
            f"expected one such as {', '.join(chip.examples)}"
        ) from None
    if len(found.devices) > chip.together:
        raise ValueError(
            f"--topology {name} has {len(found.devices)} chips, but the largest {kind} slice has "
            f"{chip.together}: several slices at once are not planned for"
        )
    return Topology(name, chip, list(found.devices))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """libtpu writes about the TPU that is missing to the process's stderr itself."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
