"""Which steps are traced, and what is said where there are none."""

from pathlib import Path

import jax
import pytest

from bert_jax.training.profiler import SKIP_FIRST, Profiler


@pytest.mark.parametrize(
    ("start", "last", "traced"), [(4, 7, []), (4, 8, [8]), (0, 20, [4, 5]), (4, 4, [])]
)
def test_the_first_steps_of_a_start_are_not_traced(
    start: int,
    last: int,
    traced: list[int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    began: list[int] = []
    monkeypatch.setattr("jax.profiler.start_trace", lambda *_, **__: began.append(1))
    monkeypatch.setattr("jax.profiler.stop_trace", lambda: None)
    profile, traced_steps = Profiler(tmp_path, 2, start), []
    for step in range(start + 1, last + 1):
        profile.before(step)
        traced_steps += [step] if profile._running else []
        profile.after(step, None)
    profile.close()
    assert (traced_steps, len(began)) == (traced, min(1, len(traced)))
    log = caplog.text
    assert ("no trace was written" in log) == (not traced)
    assert traced or f"ended before step {start + SKIP_FIRST + 1}" in log


def test_who_asked_for_no_trace_hears_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Profiler(tmp_path, 0).close()
    assert not caplog.records


@pytest.mark.parametrize("failing", ["start_trace", "stop_trace"])
def test_an_error_of_a_trace_is_logged_once_and_ends_no_run(
    failing: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ValueError("several traces in one folder")

    for name in ("start_trace", "stop_trace"):
        monkeypatch.setattr(jax.profiler, name, fail if name == failing else lambda *_, **__: None)
    profile = Profiler(tmp_path, 1)
    profile.before(SKIP_FIRST + 1)
    profile.after(SKIP_FIRST + 1, None)
    profile.close()
    assert [r.getMessage() for r in caplog.records] == [
        f"no trace was written to {tmp_path}: several traces in one folder"
    ]


def test_of_several_processes_only_the_first_traces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    profile = Profiler(tmp_path, 1)
    profile.before(SKIP_FIRST + 1)
    assert not profile._running
    profile.close()
    assert not caplog.records
