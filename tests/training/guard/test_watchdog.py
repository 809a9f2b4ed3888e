"""A phase that hangs is reported with the stacks of all threads."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from bert_jax.config import Guard
from bert_jax.training.guard import Watchdog


def hanging_on_purpose(folder: Path) -> None:
    """A name that the stacks can show; it hangs until a report does."""
    for _ in range(600):
        if "hanging_on_purpose" in reports(folder):
            return
        time.sleep(0.05)


def reports(folder: Path) -> str:
    return "".join(file.read_text() for file in sorted(folder.glob("hang-*.txt")))


def test_a_hanging_phase_is_named_with_all_stacks(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with Watchdog(Guard(hang_timeout=0.2), tmp_path) as dog:
        dog.step(7)
        with dog.phase("data"):
            hanging_on_purpose(tmp_path)
    for report in (reports(tmp_path), capfd.readouterr().err):
        assert "data of step 7 has taken" in report
        assert "hanging_on_purpose" in report
        assert "thread watchdog" in report


def test_a_usual_duration_is_not_told_of(tmp_path: Path) -> None:
    """Beyond `hang_timeout`, but not beyond so many medians."""
    dog = Watchdog(Guard(hang_timeout=0.2, hang_factor=1000), tmp_path)
    for name in ("start", "save"):
        dog._durations[name].extend([0.05] * 9)
    assert dog.limit("save") == pytest.approx(50)
    with dog, dog.phase("save"):
        time.sleep(0.6)
    assert not list(tmp_path.iterdir())


def test_a_clock_that_jumps_is_not_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dog = Watchdog(Guard(hang_timeout=0.2), tmp_path)  # it looks every 0.05 s
    for name in ("start", "step"):
        dog._durations[name].extend([10.0] * 9)
    with dog:
        for jump in (1e6, -1e6, 1e9):
            dog.step(1)
            monkeypatch.setattr(time, "time", lambda jump=jump: jump)
            time.sleep(0.1)
    assert not list(tmp_path.iterdir())


def test_a_phase_beyond_the_timeout_ends_the_process(tmp_path: Path) -> None:
    code = f"""
import time
from collections.abc import Iterator
from pathlib import Path
from bert_jax.config import Guard
from bert_jax.training.guard import Watchdog
with Watchdog(Guard(hang_timeout=.1, timeout=2), Path({str(tmp_path)!r})) as dog, \\
        dog.phase('evaluate'):
    time.sleep(60)
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert "guard.timeout" in done.stderr
    assert "evaluate of step 0" in done.stderr
