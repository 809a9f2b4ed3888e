"""Connections to Weights & Biases and MLflow. Each import is of an optional package."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from bert_jax.config import Experiment, to_dict

PROJECT = "bert-jax"  # unless WANDB_PROJECT or MLFLOW_EXPERIMENT_NAME says otherwise
MAX_PARAM = 500  # characters of a value that every MLflow server takes
MAX_PARAMS = 100  # of one request

Values = dict[str, float]  # the metrics of one step


class WandbClient:
    """A run of Weights & Biases. Its own variables count: WANDB_MODE, WANDB_PROJECT, WANDB_DIR.

    Offline every start writes a folder of its own, `wandb/offline-run-*`, with the same run id."""

    def __init__(self, config: Experiment, folder: Path, state: dict[str, Any]) -> None:
        import wandb  # type: ignore[import-not-found]

        # `init` would ask for a key at the terminal, and wait for it.
        if wandb.setup().settings.mode == "online" and not wandb.login(prompt=False):
            raise ConnectionError("no API key: run `wandb login`, or set WANDB_MODE=offline")
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=Path(config.run.dir).name,
            id=state.get("id"),
            resume="allow",
            dir=os.environ.get("WANDB_DIR", str(folder)),
            config=flat_config(config),
            settings=wandb.Settings(console="off"),
            reinit="create_new",
        )
        self.run_id = str(self._run.id)
        self.last_step = max(0, self._run.step - 1) if self._run.resumed else 0

    def send(self, values: Values, step: int) -> None:
        self._run.log(values, step=step)

    def close(self) -> None:
        self._run.finish()


class MlflowClient:
    """A run of MLflow, at MLFLOW_TRACKING_URI, or else in MLflow's own local store, `mlflow.db`
    here."""

    def __init__(self, config: Experiment, state: dict[str, Any]) -> None:
        from mlflow import MlflowClient as Client  # type: ignore[import-not-found]

        local = f"sqlite:///{Path('mlflow.db').absolute()}"
        self.uri = state.setdefault("uri", os.environ.get("MLFLOW_TRACKING_URI", local))
        self._client = Client(tracking_uri=self.uri)
        if "id" in state:
            self.run_id = str(state["id"])
            self._client.update_run(self.run_id, status="RUNNING")
            history = self._client.get_metric_history(self.run_id, "loss")
            self.last_step = max((m.step for m in history), default=0)
            return
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        experiment = self._client.get_experiment_by_name(name)
        identity = experiment.experiment_id if experiment else self._client.create_experiment(name)
        run = self._client.create_run(identity, run_name=Path(config.run.dir).name)
        self.run_id, self.last_step = str(run.info.run_id), 0
        self._log_params(config)

    def _log_params(self, config: Experiment) -> None:
        from mlflow.entities import Param  # type: ignore[import-not-found]

        params = [Param(k, str(v)[:MAX_PARAM]) for k, v in flat_config(config).items()]
        for start in range(0, len(params), MAX_PARAMS):
            self._client.log_batch(self.run_id, params=params[start : start + MAX_PARAMS])

    def send(self, values: Values, step: int) -> None:
        from mlflow.entities import Metric  # type: ignore[import-not-found]

        now = int(time.time() * 1000)
        metrics = [Metric(k.replace("@", "_at_"), v, now, step) for k, v in values.items()]
        self._client.log_batch(self.run_id, metrics=metrics)

    def close(self) -> None:
        self._client.set_terminated(self.run_id)


def flat_config(config: Experiment) -> dict[str, Any]:
    """Dotted field -> value."""
    flat: dict[str, Any] = {}

    def add(values: dict[str, Any], prefix: str) -> None:
        for name, value in values.items():
            if isinstance(value, dict):
                add(value, f"{prefix}{name}.")
            else:
                flat[prefix + name] = value

    add(to_dict(config), "")
    return flat
