"""Signals: finish the step, save, leave.

The first SIGTERM or SIGINT (a cloud's preemption notice arrives as the former) is remembered,
and the run ends at a step's boundary, saved. A second one ends the process at once; what is
being written then has no name yet, so the last checkpoint stays as it is. A thread reads the
signals from a pipe that the C handler writes to: Python's own handlers wait for the main
thread, which may hang in a device's call.

With several processes all must save the same step. At every boundary each tells its signal, as
one number that the devices reduce; the answer is read at the next boundary, so nobody waits for
it. jax's own service for this counts SIGTERM alone, through a handler that Python's replace.
"""

from __future__ import annotations

import functools
import os
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

SAME = 0.5  # seconds: signals this close are one (GNU timeout signals its child, then the group)


class PreemptionHandler:
    """A context in which `asked` is the signal that this process got, if any, and `signal` the
    one that all processes agreed to end by."""

    SIGNALS = (signal.SIGTERM, signal.SIGINT)

    def __init__(self) -> None:
        self.asked: int | None = None
        self._agreed: int | None = None
        self._told: jax.Array | None = None
        self._before: dict[int, Any] = {}

    @property
    def signal(self) -> int | None:
        return self.asked if jax.process_count() == 1 else self._agreed

    def should_stop(self) -> bool:
        """Whether to end after the step that was just dispatched: the same on all processes,
        which must ask after each. One that is alone answers at once, others a step late."""
        if jax.process_count() > 1:
            before, self._told = self._told, _largest(self.asked or 0)
            self._agreed = None if before is None else int(before) or None
        return self.signal is not None

    def __enter__(self) -> PreemptionHandler:
        reader, self._pipe = os.pipe()
        os.set_blocking(self._pipe, False)
        self._before = {s: signal.signal(s, self._ask) for s in self.SIGNALS}
        self._woken = signal.set_wakeup_fd(self._pipe, warn_on_full_buffer=False)
        _entered.add(self)
        threading.Thread(target=self._listen, args=(reader,), daemon=True).start()
        return self

    def _ask(self, number: int, frame: FrameType | None = None) -> None:
        self.asked = self.asked or number

    def _listen(self, reader: int) -> None:
        first = None
        while got := os.read(reader, 1):
            number = got[0]
            if number not in self.SIGNALS:
                continue
            if first is None:
                first = time.monotonic()
                self._ask(number)
                name = signal.Signals(number).name
                os.write(2, f"{name}: the run ends after this step, saved\n".encode())
            elif time.monotonic() - first > SAME:
                os._exit(128 + number)
        os.close(reader)

    def __exit__(
        self, kind: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None
    ) -> None:
        _entered.discard(self)
        signal.set_wakeup_fd(self._woken)
        for s, handler in self._before.items():
            signal.signal(s, handler)
        os.close(self._pipe)


_entered: set[PreemptionHandler] = set()


def _forget() -> None:
    """In a forked child: its signals are not ours, and would come through our pipe."""
    for stop in _entered:
        signal.set_wakeup_fd(-1)
        for s in stop.SIGNALS:
            signal.signal(s, signal.SIG_DFL)
    _entered.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def _largest(number: int) -> jax.Array:
    """The largest of all processes' numbers; not waited for."""
    where, largest = _reduction()
    each = np.full(jax.local_device_count(), number, np.int32)
    return largest(jax.make_array_from_process_local_data(where, each))


@functools.cache
def _reduction() -> tuple[NamedSharding, Callable[[jax.Array], jax.Array]]:
    """One number on each device, and the function that finds the largest."""
    mesh = jax.make_mesh((jax.device_count(),), ("all",), axis_types=(AxisType.Auto,))
    return NamedSharding(mesh, P("all")), jax.jit(jnp.max, out_shardings=NamedSharding(mesh, P()))
