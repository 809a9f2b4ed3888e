"""SIGTERM and SIGINT stop a run once, at the same step in all processes."""

import signal
import subprocess
import sys
import time

import jax
import pytest

from bert_jax.training.guard import PreemptionHandler


def test_processes_agree_a_step_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """What one is asked all read at their next boundary; one that is alone knows at once."""
    stop = PreemptionHandler()
    stop.received = signal.SIGINT
    assert stop.should_stop()
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    stop = PreemptionHandler()
    assert not stop.should_stop()
    stop.received = signal.SIGINT
    assert not stop.should_stop()
    assert stop.signal is None
    assert stop.should_stop()
    assert stop.signal == signal.SIGINT


def test_processes_agree_on_a_signal_after_the_last_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that all of them, or none, begin the next seed."""
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    stop = PreemptionHandler()
    stop.agree()
    assert stop.signal is None
    stop.received = signal.SIGTERM
    stop.agree()
    assert stop.signal == signal.SIGTERM


def child(code: str) -> subprocess.Popen:
    process = subprocess.Popen([sys.executable, "-c", code], stdout=-1, stderr=-1, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


BUSY = """
import hashlib, time
from bert_jax.training.guard import PreemptionHandler
with PreemptionHandler() as stop:
    print('ready', flush=True)
    {wait}
    print(stop.signal)
"""


def test_a_second_signal_ends_a_process_that_hangs_in_a_device() -> None:
    """In C, where Python's handlers do not run."""
    run = child(BUSY.format(wait="hashlib.pbkdf2_hmac('sha256', b'', b'', 2**31 - 1)"))
    run.send_signal(signal.SIGTERM)
    time.sleep(1)
    assert run.poll() is None
    run.send_signal(signal.SIGTERM)
    assert run.wait(10) == 143


def test_two_signals_at_once_are_one() -> None:
    run = child(BUSY.format(wait="time.sleep(1)"))
    for number in (signal.SIGTERM, signal.SIGINT):
        run.send_signal(number)
        time.sleep(0.02)
    out, err = run.communicate(timeout=10)
    assert (run.returncode, out) == (0, "15\n")
    assert "SIGTERM: stopping after this step and saving a checkpoint" in err


def test_signals_of_a_forked_child_are_its_own() -> None:
    """Python's pools end their workers by SIGTERM."""
    forks = "pid = os.fork(); time.sleep(.5 if pid else 20)"
    ends = "os.kill(pid, 15); print(os.waitpid(pid, 0)[1]); time.sleep(.2)"
    run = child("import os" + BUSY.format(wait=f"{forks}; {ends}"))
    out, err = run.communicate(timeout=20)
    assert out == "15\nNone\n"
    assert "SIGTERM" not in err
