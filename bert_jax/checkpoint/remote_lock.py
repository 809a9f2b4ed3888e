"""One run at a time in a folder on a bucket, where no lock dies with its owner.

An object that is made only where it is not there says who has the folder; its owner changes it
every `BEAT` seconds. Who finds it waits: where it changes it is in use, where it does not for
`LONG` seconds its owner was killed. Clocks are not compared.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator

from bert_jax.utils import remote
from bert_jax.utils.errors import RunError

logger = logging.getLogger(__name__)

NAME = ".lock"
BEAT = 20.0  # seconds
LONG = 90.0  # without a beat the owner is taken for dead


class Lease:
    """A folder of one's own, for as long as nobody took this run for dead."""

    def __init__(self, folder: str) -> None:
        self._folder, self._path = folder, f"{folder}/{NAME}"
        self._me = f"process {os.getpid()} on {socket.gethostname()} ({uuid.uuid4().hex[:8]})"
        self._beating = threading.Thread(target=self._beat, name="lease", daemon=True)
        self._ending, self._lost = threading.Event(), ""

    def check(self) -> None:
        """Failure: another run has the folder now."""
        if self._lost:
            raise RunError(
                f"run.dir {self._folder} was taken over by {self._lost}, which took this run for "
                "dead: end one of them"
            )

    def begin(self) -> None:
        """Take the folder, and give signs of life until the end. ValueError: another run has it,
        or it cannot be written."""
        try:
            self._take()
        except ValueError:
            raise
        except Exception as e:  # of the client's three libraries
            raise ValueError(
                f"run.dir {self._folder} cannot be written ({type(e).__name__}: {e}): choose "
                "another folder"
            ) from e
        self._beating.start()

    def _take(self) -> None:
        seen, since = "", time.monotonic()
        while not remote.create_exclusive(self._path, f"{self._me} 0"):
            now = remote.read(self._path)
            if now is None:
                continue  # its owner ended just now
            if seen and now != seen:
                raise ValueError(
                    f"run.dir {self._folder} is in use by {_owner(now)}: wait until it ends, or "
                    "choose another --run.dir"
                )
            if not seen:
                said = f"run.dir {self._folder} was left or is in use by {_owner(now)}"
                logger.info("%s: looking for a sign of life, %g seconds", said, LONG)
            seen = now
            if time.monotonic() - since > LONG:
                logger.warning("%s gives none: the folder is taken over", _owner(now))
                remote.remove(self._path)
            else:
                time.sleep(BEAT / 4)

    def _beat(self) -> None:
        beats = 0
        while not self._ending.wait(BEAT):
            with contextlib.suppress(Exception):  # the next one may arrive
                now = remote.read(self._path)
                if now is not None and not now.startswith(self._me):
                    self._lost = _owner(now)
                    logger.error("run.dir %s was taken over by %s", self._folder, now)
                    return
                beats += 1
                remote.write(self._path, f"{self._me} {beats}")

    def end(self) -> None:
        self._ending.set()
        self._beating.join()
        with contextlib.suppress(Exception):  # it is taken over after a while
            if (remote.read(self._path) or "").startswith(self._me):
                remote.remove(self._path)


def _owner(text: str) -> str:
    return text.partition(" (")[0][:200]


@contextlib.contextmanager
def hold(folder: str, mine: bool = True) -> Iterator[Lease]:
    """Keep other runs out of a folder on a bucket; with `mine` False another process of this run
    does. ValueError: another run has it, or it cannot be written."""
    lease = Lease(folder.rstrip("/"))
    if not mine:
        yield lease
        return
    lease.begin()
    try:
        yield lease
    finally:
        lease.end()
