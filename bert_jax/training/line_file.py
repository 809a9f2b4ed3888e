"""A file of lines that a full disk does not end: `metrics.jsonl` and `timing.jsonl`."""

from __future__ import annotations

import logging
import os
from pathlib import Path

logger = logging.getLogger(__name__)


class LineFile:
    """Appends lines to a file, each at once.

    Lines that cannot be written stay in memory, and are written before the next one. This is warned
    of once.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._unwritten, self._warned = path, b"", False
        self._file = path.open("ab", buffering=0)

    def write(self, line: str) -> None:
        """Append a line; its end is added."""
        self._unwritten += line.encode() + b"\n"
        try:
            self._flush()
        except OSError as e:
            if not self._warned:
                logger.warning(
                    "%s cannot be written (%s): its lines are kept in memory until it can",
                    *(self._path, e.strerror),
                )
            self._warned = True

    def fsync(self) -> None:
        """Write all lines to the disk, and close the file until the next line: a mounted bucket
        (gcsfuse) keeps only what was closed. OSError, which names the file: that failed."""
        try:
            self._flush()
            os.fsync(self._file.fileno())
            self._file.close()
        except OSError as e:
            raise OSError(e.errno, e.strerror, str(self._path)) from e

    def close(self) -> None:
        """Close the file. Lines that still cannot be written are lost, and warned of."""
        try:
            self._flush()
        except OSError as e:
            lost = self._unwritten.count(b"\n")
            logger.warning("%s lacks its last %d lines (%s)", self._path, lost, e.strerror)
        self._file.close()

    def _flush(self) -> None:
        if self._file.closed:
            self._file = self._path.open("ab", buffering=0)
        while self._unwritten:  # a disk that fills up takes a part
            self._unwritten = self._unwritten[self._file.write(self._unwritten) :]
