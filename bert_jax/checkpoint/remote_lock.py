"""One run at a time in a run directory on a bucket: an object `.lock` with owner and time.

No lock on a bucket ends with its owner. The owner renews the object while it trains; a lock that
is older than `run.lock_timeout` was left by a killed run, and the next run takes it over.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import time
import uuid
from collections.abc import Iterator
from typing import NamedTuple

from bert_jax.checkpoint.lock import NAME, owner_name
from bert_jax.utils import remote
from bert_jax.utils.errors import LockLost, RunError, with_type

logger = logging.getLogger(__name__)

POLL = 5.0  # seconds between looks at another run's lock
RENEWALS = 10  # within run.lock_timeout


class LockInfo(NamedTuple):
    """Content of a lock object."""

    id: str  # of one run's lock
    owner: str
    time: float  # seconds since 1970, by the owner's clock; inf: unknown


class RemoteLock:
    """Lock of a run directory. The training loop calls `refresh`; the lock has no thread."""

    def __init__(self, folder: str, timeout: float) -> None:
        self._folder, self._timeout = folder.rstrip("/"), timeout
        self._path = remote.storage_path(folder) / NAME
        self._id, self._renewed = uuid.uuid4().hex, 0.0

    @contextlib.contextmanager
    def hold(self, take_over: bool = False) -> Iterator[None]:
        """Keep other runs out until the block ends. Waits until another run's lock is older than
        the timeout; with `take_over` it is taken at once. ValueError: another run renews its lock,
        or the folder cannot be written."""
        try:
            self._acquire(take_over)
        except ValueError:
            raise
        except Exception as e:  # of gcsfs, aiohttp or google-auth
            raise ValueError(
                f"run.dir {self._folder} cannot be written ({with_type(e)}): choose another "
                "--run.dir"
            ) from e
        try:
            yield
        finally:
            with contextlib.suppress(Exception):  # else it expires
                lock = self._read()
                if lock is not None and lock.id == self._id:
                    self._path.unlink()

    def check(self) -> None:
        """LockLost: another run has taken the lock over, and perhaps ended since."""
        lock = self._read()
        if lock is None or lock.id != self._id:
            owner = "another run, which has ended" if lock is None else lock.owner
            raise LockLost(
                f"run.dir {self._folder} was taken over by {owner}: this run stops saving. "
                "Stop one of the two runs; if this one paused too long, raise --run.lock_timeout"
            )

    def refresh(self) -> None:
        """Renew the lock if a tenth of the timeout has passed. LockLost: as `check`."""
        if time.monotonic() - self._renewed < self._timeout / RENEWALS:
            return
        self._renewed = time.monotonic()
        try:
            self.check()
            self._path.write_text(self._content())
        except RunError:
            raise
        except Exception as e:  # the next attempt may succeed
            logger.warning("the lock %s was not renewed (%s)", self._path, with_type(e))

    def _acquire(self, take_over: bool) -> None:
        first, start = None, time.monotonic()
        while not remote.create_exclusive(self._path, self._content()):
            lock = self._read()
            if lock is None:
                continue  # released a moment ago
            if first is not None and lock != first:
                raise ValueError(
                    f"run.dir {self._folder} is in use by {lock.owner}: wait until it ends, or "
                    "choose another --run.dir"
                )
            # The two clocks may differ, so a lock that stays the same for the timeout expires too.
            age = max(time.time() - lock.time, time.monotonic() - start)
            locked = f"run.dir {self._folder} is locked by {lock.owner}, renewed {age:.0f} s ago"
            if take_over or age > self._timeout:
                logger.warning("%s: taking over the lock", locked)
                self._path.unlink(missing_ok=True)
                first = None
                continue
            if first is None:
                logger.warning(
                    "%s: waiting up to %.0f s for the lock to expire (run.lock_timeout); to take "
                    "it over at once, use --take-over",
                    *(locked, self._timeout - age),
                )
            first = lock
            time.sleep(min(POLL, self._timeout / RENEWALS))
        self._renewed = time.monotonic()

    def _content(self) -> str:
        return json.dumps(LockInfo(self._id, owner_name(), time.time())._asdict())

    def _read(self) -> LockInfo | None:
        """None: there is no lock."""
        try:
            text = self._path.read_text()
        except FileNotFoundError:
            return None
        try:
            fields = json.loads(text)
            return LockInfo(str(fields["id"]), str(fields["owner"])[:200], float(fields["time"]))
        except (ValueError, TypeError, KeyError):
            return LockInfo(text, "an unknown run", math.inf)
