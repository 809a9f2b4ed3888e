"""SIGTERM and SIGINT stop a run once, at the same step in all processes."""

import signal
import subprocess
import sys
import time
from typing import Any

import jax
import pytest

from bert_jax.training.guard import PreemptionHandler, preemption


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
    pipes: dict[str, Any] = dict(stdin=-1, stdout=-1, stderr=-1, text=True)
    process = subprocess.Popen([sys.executable, "-c", code], **pipes)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def wait_until_read(process: subprocess.Popen) -> None:
    """Until the process has read its first signal."""
    assert process.stderr is not None
    while not (line := process.stderr.readline()).startswith("SIGTERM: stopping after this step"):
        assert line


BUSY = """
import hashlib, sys, time
from bert_jax.training.guard import PreemptionHandler
with PreemptionHandler() as stop:
    print('ready', flush=True)
    {wait}
    print(stop.signal)
"""


def test_a_second_signal_ends_a_process_that_hangs_in_a_device() -> None:
    """In C, where Python's handlers do not run."""
    run = child(BUSY.format(wait="hashlib.pbkdf2_hmac('sha256', b'', b'', 2**31 - 1)"))
    try:
        run.send_signal(signal.SIGTERM)
        wait_until_read(run)
        time.sleep(preemption.SAME_SIGNAL + 0.1)
        assert run.poll() is None
        run.send_signal(signal.SIGTERM)
        assert run.wait(60) == 143
    finally:
        run.kill()


def test_two_signals_at_once_are_one() -> None:
    """Within a time that is made long here."""
    long = "from bert_jax.training.guard import preemption; preemption.SAME_SIGNAL = 60"
    run = child(long + BUSY.format(wait="sys.stdin.read()"))
    run.send_signal(signal.SIGTERM)
    wait_until_read(run)
    run.send_signal(signal.SIGINT)
    out, _ = run.communicate(timeout=60)  # ends its input
    assert (run.returncode, out) == (0, "15\n")


def test_signals_of_a_forked_child_are_its_own() -> None:
    """Python's pools end their workers by SIGTERM."""
    forks = "pid = os.fork(); time.sleep(.5 if pid else 20)"
    ends = "os.kill(pid, 15); print(os.waitpid(pid, 0)[1]); time.sleep(.2)"
    run = child("import os" + BUSY.format(wait=f"{forks}; {ends}"))
    out, err = run.communicate(timeout=60)
    assert out == "15\nNone\n"
    assert "SIGTERM" not in err
