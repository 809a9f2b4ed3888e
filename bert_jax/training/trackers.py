"""Experiment trackers beside metrics.jsonl: `run.trackers tensorboard,wandb,mlflow`.

W&B and MLflow are sent to by a thread of their own, so a slow server never delays a step, and a
tracker that fails is reported and left alone: it never ends a run. `trackers/NAME.json` in the run
folder holds the tracker's run id, which a resumed run continues, and the last step that was sent.
It is written before the step is sent, so that no step is sent twice: a kill in between leaves out
one step there. metrics.jsonl has every step.
"""

from __future__ import annotations

import contextlib
import json
import logging
import queue
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from bert_jax.config import TRACKERS, Experiment
from bert_jax.training.tracker_clients import MlflowClient, Values, WandbClient
from bert_jax.utils import io
from bert_jax.utils.errors import first_line

logger = logging.getLogger(__name__)

CLOSE_TIMEOUT = 60.0  # seconds that a run waits at its end for what is not sent yet
MAX_WAITING = 10_000  # steps that wait to be sent, beyond which they are left out


class Tracker(Protocol):
    """Takes the metrics of a run, step by step."""

    def add(self, values: Values, step: int) -> None:
        """Take the metrics of one step; steps come in order."""
        ...

    def close(self) -> None:
        """Write or send what is left."""
        ...


class Client(Protocol):
    """The connection to a tracking service: it may be slow, and raise anything."""

    run_id: str
    last_step: int  # that the service knows, as far as it tells; 0 if none

    def send(self, values: Values, step: int) -> None:
        """Send the metrics of one step."""
        ...

    def close(self) -> None:
        """End the run at the service."""
        ...


def open_trackers(config: Experiment, folder: Path, step: int) -> list[Tracker]:
    """The trackers of `run.trackers`, for metrics from `step` on. The libraries are imported here.

    W&B and MLflow connect later, in their threads."""
    trackers: list[Tracker] = []
    for name in config.run.tracker_names:
        if name == "tensorboard":
            # tensorboardX imports torch where it is installed, which takes a second
            from bert_jax.training.tensorboard import TensorBoardWriter

            trackers.append(TensorBoardWriter(folder / "tensorboard", step))
        else:
            trackers.append(BackgroundTracker(name, folder, config))
    return trackers


class BackgroundTracker:
    """Sends metrics to a service, in order, each step once across restarts."""

    def __init__(
        self, name: str, folder: Path, config: Experiment, connect: Connect | None = None
    ) -> None:
        self._name, self._folder, self._config = name, folder, config
        self._connect = connect or CONNECT[name]
        self._file = folder / "trackers" / f"{name}.json"
        self._queue: queue.Queue[tuple[Values, int] | None] = queue.Queue(MAX_WAITING)
        self._left_out = 0
        self._failed = self._closing = False
        self._thread = threading.Thread(target=self._run, name=f"tracker {name}", daemon=True)
        self._thread.start()

    def add(self, values: Values, step: int) -> None:
        """Pass on the metrics of a step; returns at once."""
        try:
            self._queue.put_nowait((values, step))
        except queue.Full:
            self._left_out += not self._failed

    def close(self) -> None:
        """Wait until all is sent, but at most CLOSE_TIMEOUT."""
        with contextlib.suppress(queue.Full):
            self._queue.put(None, timeout=CLOSE_TIMEOUT)
        self._thread.join(CLOSE_TIMEOUT)
        self._left_out += sum(item is not None for item in list(self._queue.queue))
        if self._thread.is_alive() or self._left_out:
            logger.warning(
                "%s did not take all metrics in time (%d steps are missing there); they are in "
                "metrics.jsonl",
                self._name,
                self._left_out,
            )

    def _run(self) -> None:
        try:
            client = self._open()
            while (item := self._queue.get()) is not None:
                values, step = item
                if step > self._state["step"]:
                    self._save(step=step)
                    client.send(values, step)
            self._closing = True
            client.close()
        except Exception as e:  # of any library, network or server
            self._failed = True
            logger.warning(
                "tracker %s failed (%.200s): no more metrics are sent to it; the run continues",
                self._name,
                first_line(e),
            )
            while not self._closing and self._queue.get() is not None:
                pass  # what nobody takes must not fill the queue

    def _open(self) -> Client:
        state = json.loads(self._file.read_text()) if self._file.is_file() else {}
        client = self._connect(self._config, self._folder, state)
        self._state: dict[str, Any] = {"step": 0, **state}
        self._save(id=client.run_id, step=max(self._state["step"], client.last_step))
        return client

    def _save(self, **changes: Any) -> None:
        self._state |= changes
        self._file.parent.mkdir(parents=True, exist_ok=True)
        io.write_text(self._file, json.dumps(self._state) + "\n")


Connect = Callable[[Experiment, Path, dict[str, Any]], Client]


def _connect_wandb(config: Experiment, folder: Path, state: dict[str, Any]) -> Client:
    return WandbClient(config, folder, state)


def _connect_mlflow(config: Experiment, folder: Path, state: dict[str, Any]) -> Client:
    return MlflowClient(config, state)


CONNECT: dict[str, Connect] = {"wandb": _connect_wandb, "mlflow": _connect_mlflow}


def check_installed(names: Sequence[str]) -> None:
    """ValueError: a library of one of the trackers is not installed."""
    from importlib.util import find_spec

    from bert_jax.utils import extras

    assert {"tensorboard", *CONNECT} == set(TRACKERS)
    packages = {"wandb": "wandb", "mlflow": "mlflow-skinny"}
    for name in names:
        if name in packages and find_spec(name) is None:
            raise extras.missing(f"run.trackers {name}", packages[name], name)
