"""Trackers: each step once across restarts, and never the end of a run. W&B offline and MLflow's
local store are the real libraries, where they are installed."""

from __future__ import annotations

import json
import logging
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from bert_jax.config import Experiment, replace
from bert_jax.training import trackers
from bert_jax.training.metrics_writer import MetricsWriter
from bert_jax.training.trackers import BackgroundTracker, open_trackers


class Service:
    """A tracking service in memory: what was sent, and what it does."""

    def __init__(self, last_step: int = 0, fails_at: int | None = None) -> None:
        self.run_id, self.last_step, self.fails_at = "a1", last_step, fails_at
        self.sent: list[int] = []
        self.states: list[dict[str, Any]] = []
        self.closed = False
        self.goes_on = threading.Event()
        self.goes_on.set()

    def connect(self, config: Experiment, folder: Path, state: dict[str, Any]) -> Service:
        self.states.append(dict(state))
        return self

    def send(self, values: dict[str, float], step: int) -> None:
        assert self.goes_on.wait(5)
        if step == self.fails_at:
            raise ConnectionError("no route to host\nmore")
        self.sent.append(step)

    def close(self) -> None:
        self.closed = True


def experiment(folder: Path, names: str) -> Experiment:
    return replace(Experiment(), run=dict(dir=str(folder / "runs/mine"), trackers=names))


def track(service: Service, folder: Path, steps: range) -> None:
    config = experiment(folder, "wandb")
    tracker = BackgroundTracker("wandb", folder, config, service.connect)
    for step in steps:
        tracker.add({"loss": 1.0 / step}, step)
    tracker.close()


def test_a_resumed_run_keeps_its_id_and_sends_no_step_twice(tmp_path: Path) -> None:
    service = Service()
    track(service, tmp_path, range(1, 6))
    track(service, tmp_path, range(4, 9))  # from a checkpoint before the kill
    assert service.sent == list(range(1, 9))
    assert service.states == [{}, {"id": "a1", "step": 5}]
    assert json.loads((tmp_path / "trackers/wandb.json").read_text())["step"] == 8


def test_what_the_service_has_already_is_not_sent(tmp_path: Path) -> None:
    service = Service(last_step=3)
    track(service, tmp_path, range(1, 6))
    assert service.sent == [4, 5]


def test_a_tracker_that_fails_is_reported_once_and_left_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    service = Service(fails_at=3)
    track(service, tmp_path, range(1, 100))
    assert service.sent == [1, 2]
    assert [r.getMessage() for r in caplog.records] == [
        "tracker wandb failed (no route to host): no more metrics are sent to it; the run continues"
    ]


def test_a_slow_tracker_delays_no_step_and_is_not_waited_for_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(trackers, "CLOSE_TIMEOUT", 0.1)
    service = Service()
    service.goes_on.clear()
    track(service, tmp_path, range(1, 4))
    service.goes_on.set()
    assert "wandb did not take all metrics in time" in caplog.text


def test_names_are_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert experiment(tmp_path, "wandb, tensorboard").run.tracker_names == ("wandb", "tensorboard")
    assert experiment(tmp_path, "").run.tracker_names == ()
    with pytest.raises(ValueError, match=r"run.trackers names 'wandbb': expected some of tensor"):
        experiment(tmp_path, "wandbb")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"run.trackers mlflow needs mlflow-skinny, .*pip install"):
        trackers.check_installed(("tensorboard", "mlflow"))


@pytest.mark.parametrize("names", ["tensorboard", ""])
def test_a_run_writes_to_the_trackers_that_it_names(tmp_path: Path, names: str) -> None:
    opened = partial(open_trackers, experiment(tmp_path, names), tmp_path)
    writer = MetricsWriter(tmp_path, 0, 10, dict, opened)
    writer.advance(1)
    writer.write({"loss": 1.0})
    writer.close()
    assert (tmp_path / "tensorboard").is_dir() == bool(names)


def run_twice(config: Experiment, folder: Path) -> None:
    """Five steps; then a resumed run, from step 3, of five more."""
    for steps in (range(1, 6), range(4, 9)):
        for tracker in open_trackers(config, folder, steps[0]):
            for step in steps:
                tracker.add({"loss": 1.0 / step, "mrr@10": 0.5}, step)
            tracker.close()


@pytest.mark.library("mlflow", "sqlalchemy", "alembic", "sqlparse")
def test_mlflow_with_its_local_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import mlflow

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    run_twice(experiment(tmp_path, "mlflow"), tmp_path / "run")
    assert "failed" not in caplog.text
    state = json.loads((tmp_path / "run/trackers/mlflow.json").read_text())
    client = mlflow.MlflowClient(tracking_uri=state["uri"])
    (found,) = client.search_runs([client.get_experiment_by_name("bert-jax").experiment_id])
    assert (found.info.run_name, found.info.status) == ("mine", "FINISHED")
    assert found.data.params["encoder.layers"] == "12"
    history = client.get_metric_history(state["id"], "loss")
    assert [(m.step, m.value) for m in history] == [(s, 1.0 / s) for s in range(1, 9)]
    assert client.get_metric_history(state["id"], "mrr_at_10")


@pytest.mark.library("wandb")
def test_wandb_offline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    caplog.set_level(logging.WARNING)
    (tmp_path / "run").mkdir()
    run_twice(experiment(tmp_path, "wandb"), tmp_path / "run")
    assert "failed" not in caplog.text
    state = json.loads((tmp_path / "run/trackers/wandb.json").read_text())
    logs = sorted((tmp_path / "run/wandb").glob(f"offline-run-*/run-{state['id']}.wandb"))
    assert len(logs) == 2  # one folder per start, with the same id
    deadline = time.monotonic() + 60  # W&B's own process writes the file
    while not logged_steps(logs[1]) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert [logged_steps(log) for log in logs] == [[1, 2, 3, 4, 5], [6, 7, 8]]


def logged_steps(log: Path) -> list[int]:
    """The steps in W&B's log of one block: 7 bytes, then records of checksum, size, type, bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, steps = log.read_bytes()[7:], []
    assert len(content) < 2**15 - 7  # beyond which a second block begins
    while content:
        size = int.from_bytes(content[4:6], "little")
        record = Record.FromString(content[7 : 7 + size])
        content = content[7 + size :]
        if record.HasField("history"):
            steps.append(record.history.step.num)
    return steps
