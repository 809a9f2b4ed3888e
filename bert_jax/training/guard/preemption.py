"""SIGTERM and SIGINT: finish the step, save a checkpoint, exit.

After the first SIGTERM or SIGINT (a cloud sends its preemption notice as SIGTERM) the run ends
at the next step boundary and saves. A second signal ends the process at once. A checkpoint that
is being written then has no final name yet, so the last one stays as it is. A thread reads the
signals from a pipe that the C handler writes to: Python's own handlers wait for the main
thread, which may hang in a device call.

Several processes must save the same step. At every step boundary each process contributes its
signal as one number, and the devices reduce them. The result is read at the next boundary, so
no process waits for it. jax's own preemption service handles SIGTERM only, and Python's signal
handler replaces its handler.
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

# Signals within so many seconds count as one: GNU timeout signals its child, then the group.
SAME_SIGNAL = 0.5


class PreemptionHandler:
    """A context that catches signals. `received` is the signal that this process got, `signal` the
    one that all processes agreed on; None where there is none."""

    SIGNALS = (signal.SIGTERM, signal.SIGINT)

    def __init__(self) -> None:
        self.received: int | None = None
        self._agreed: int | None = None
        self._pending: jax.Array | None = None
        self._old_handlers: dict[int, Any] = {}

    @property
    def signal(self) -> int | None:
        """The number of the signal on which all processes agree to stop, or None."""
        return self.received if jax.process_count() == 1 else self._agreed

    def should_stop(self) -> bool:
        """Whether to stop after the step that was just dispatched. All processes get the same
        answer and must call this after every step. With several processes the answer is one step
        late."""
        if jax.process_count() > 1:
            previous, self._pending = self._pending, _maximum(self.received or 0)
            self._agreed = None if previous is None else int(previous) or None
        return self.signal is not None

    def agree(self) -> None:
        """Agree on a signal that has come since the last step. All processes must call this, and
        wait for each other."""
        if jax.process_count() > 1:
            self._agreed = self._agreed or int(_maximum(self.received or 0)) or None

    def __enter__(self) -> PreemptionHandler:
        reader, self._pipe = os.pipe()
        os.set_blocking(self._pipe, False)
        self._old_handlers = {s: signal.signal(s, self._receive) for s in self.SIGNALS}
        self._old_wakeup_fd = signal.set_wakeup_fd(self._pipe, warn_on_full_buffer=False)
        _active.add(self)
        threading.Thread(target=self._listen, args=(reader,), daemon=True).start()
        return self

    def _receive(self, number: int, frame: FrameType | None = None) -> None:
        self.received = self.received or number

    def _listen(self, reader: int) -> None:
        first = None
        while got := os.read(reader, 1):
            number = got[0]
            if number not in self.SIGNALS:
                continue
            if first is None:
                first = time.monotonic()
                self._receive(number)
                name = signal.Signals(number).name
                os.write(2, f"{name}: stopping after this step and saving a checkpoint\n".encode())
            elif time.monotonic() - first > SAME_SIGNAL:
                os._exit(128 + number)
        os.close(reader)

    def __exit__(
        self, kind: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None
    ) -> None:
        _active.discard(self)
        signal.set_wakeup_fd(self._old_wakeup_fd)
        for s, handler in self._old_handlers.items():
            signal.signal(s, handler)
        os.close(self._pipe)


_active: set[PreemptionHandler] = set()


def _reset_in_child() -> None:
    """A forked child must not write its signals into its parent's pipe."""
    for handler in _active:
        signal.set_wakeup_fd(-1)
        for s in handler.SIGNALS:
            signal.signal(s, signal.SIG_DFL)
    _active.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_in_child)


def _maximum(number: int) -> jax.Array:
    """The maximum over all processes; the result is not waited for."""
    sharding, maximum = _reduction()
    each = np.full(jax.local_device_count(), number, np.int32)
    return maximum(jax.make_array_from_process_local_data(sharding, each))


@functools.cache
def _reduction() -> tuple[NamedSharding, Callable[[jax.Array], jax.Array]]:
    """The sharding of one number per device, and the jitted maximum over them."""
    # not jax.make_mesh, which refuses the GPUs of several hosts
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("all",), axis_types=(AxisType.Auto,))
    return NamedSharding(mesh, P("all")), jax.jit(jnp.max, out_shardings=NamedSharding(mesh, P()))
