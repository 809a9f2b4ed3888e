"""Write scalars to TensorBoard's event file."""

from __future__ import annotations

import logging
import time
from pathlib import Path

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog  # type: ignore[attr-defined]
from tensorboardX.proto.summary_pb2 import Summary  # type: ignore[attr-defined]

logger = logging.getLogger(__name__)

FLUSH_EVERY = 10.0  # seconds


class TensorBoardWriter:
    """Writes scalars by step, in the calling thread. tensorboardX's own writer uses a thread; on a
    full disk that thread dies and close() hangs. Scalars from `step` on replace what an earlier
    run wrote. If the file cannot be written, a warning is logged and no more is written; the
    numbers are in `metrics.jsonl` too."""

    def __init__(self, folder: Path, step: int) -> None:
        self._file: EventsWriter | None = None
        self._flushed = time.monotonic()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = EventsWriter(str(folder / "events"))
        except OSError as e:
            self._give_up(e)
        self._write(Event(step=step, session_log=SessionLog(status=SessionLog.START)))

    def add(self, values: dict[str, float], step: int) -> None:
        tagged = [Summary.Value(tag=k, simple_value=v) for k, v in values.items()]
        self._write(Event(step=step, summary=Summary(value=tagged)))

    def close(self) -> None:
        self._write(None)

    def _write(self, event: Event | None) -> None:
        """Write one event; None closes the file."""
        if self._file is None:
            return
        try:
            if event is None:
                self._file.close()
                return
            event.wall_time = time.time()
            self._file.write_event(event)
            if time.monotonic() - self._flushed > FLUSH_EVERY:
                self._file.flush()
                self._flushed = time.monotonic()
        except OSError as e:
            self._give_up(e)

    def _give_up(self, e: OSError) -> None:
        self._file = None
        logger.warning(
            "TensorBoard's event file cannot be written (%s): no more scalars are written",
            e.strerror,
        )
