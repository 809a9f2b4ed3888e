"""Processes that share a GPU: what is timed is alone."""

import threading
from pathlib import Path

from benchmarks.gpu_turns import Turns


def test_one_is_alone_only_when_none_prepares(tmp_path: Path) -> None:
    """Locks of files exclude threads as they exclude processes: each opens the file anew."""
    events: list[str] = []
    prepares, may_end = threading.Event(), threading.Event()

    def prepare() -> None:
        with Turns(tmp_path).preparing():
            prepares.set()
            may_end.wait()
            events.append("prepared")

    def time() -> None:
        with Turns(tmp_path).alone():
            events.append("timed")

    threads = [threading.Thread(target=f, daemon=True) for f in (prepare, time)]
    threads[0].start()
    prepares.wait()
    threads[1].start()
    with Turns(tmp_path).preparing():  # many prepare at a time
        threads[1].join(0.05)
    assert not events
    may_end.set()
    for thread in threads:
        thread.join()
    assert events == ["prepared", "timed"]
