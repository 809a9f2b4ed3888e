"""Which of several processes this one is: from flags, the environment, or the cluster."""

from __future__ import annotations

import os
import socket
import warnings
from dataclasses import dataclass
from typing import Any

from bert_jax.utils.errors import first_line

WAIT = 300.0  # seconds for all processes to come
VARIABLES = {  # field of a ProcessInfo -> environment variable
    "coordinator": "JAX_COORDINATOR_ADDRESS",
    "count": "JAX_NUM_PROCESSES",
    "index": "JAX_PROCESS_ID",
}
FLAGS = {"coordinator": "--coordinator", "count": "--processes", "index": "--process"}
JOB_INDEX = "JOB_COMPLETION_INDEX"  # Kubernetes sets it in each pod of an Indexed Job
JOB_PORT = 8476  # where the first pod listens


@dataclass(frozen=True)
class ProcessInfo:
    """One process of several."""

    coordinator: str  # host:port of process 0
    count: int
    index: int
    devices: tuple[int, ...] | None = None  # the local devices that it uses; None: all

    def __post_init__(self) -> None:
        host, _, port = self.coordinator.rpartition(":")
        if not host or not port.isdecimal():
            raise ValueError(f"--coordinator is {self.coordinator!r}: expected HOST:PORT")
        if not 0 <= self.index < self.count:
            raise ValueError(f"--process is {self.index} of {self.count}: expected 0 to count - 1")

    @property
    def address(self) -> tuple[str, int]:
        """The host and the port of process 0."""
        host, _, port = self.coordinator.rpartition(":")
        return host.strip("[]"), int(port)


def detect_process(
    count: int | None = None, index: int | None = None, coordinator: str | None = None
) -> ProcessInfo | None:
    """Return which process this is, or None if it is the only one.

    The arguments come first, then the environment `VARIABLES`. The rest is read from an Indexed
    Job of Kubernetes (if the count is known), or by jax from Open MPI, SLURM, Cloud TPU or
    Kubernetes. Raise ValueError if only a part is known.
    """
    values: dict[str, Any] = {"coordinator": coordinator, "count": count, "index": index}
    for name, variable in VARIABLES.items():
        if values[name] is None and os.environ.get(variable):
            values[name] = (
                os.environ[variable] if name == "coordinator" else _int_variable(variable)
            )
    if values["count"] == 1:
        return None
    devices = None
    if values["count"] is not None and os.environ.get(JOB_INDEX):
        index, coordinator = _read_indexed_job()
        values["index"] = index if values["index"] is None else values["index"]
        values["coordinator"] = values["coordinator"] or coordinator
    if None in values.values():
        *detected, devices = _read_cluster(**values)
        values = dict(zip(values, detected, strict=True))
    if values["count"] == 1 or set(values.values()) == {None}:
        return None
    missing = [name for name, value in values.items() if value is None]
    if missing:
        known = ", ".join(f"{FLAGS[n]} {v}" for n, v in values.items() if v is not None)
        raise ValueError(
            f"this is one of several processes ({known}), but no cluster was detected: also give "
            + " and ".join(f"{FLAGS[n]} (or {VARIABLES[n]})" for n in missing)
        )
    return ProcessInfo(**values, devices=None if devices is None else tuple(devices))


def _read_indexed_job() -> tuple[int, str | None]:
    """Return the index of a pod of an Indexed Job, as in a JobSet, and the first pod's address.

    The pods are called JOB-0, JOB-1, ... and find each other by a headless service. No variable
    holds their count: without it each may be a run of its own.
    """
    index = _int_variable(JOB_INDEX)
    pod, _, domain = socket.getfqdn().partition(".")
    job = pod.removesuffix(f"-{index}")
    return index, f"{job}-0.{domain}:{JOB_PORT}" if domain and job != pod else None


def _read_cluster(coordinator: Any, count: Any, index: Any) -> tuple[Any, ...]:
    """Return coordinator, count, index and devices as jax detects them.

    jax offers this only as a part of `initialize`. Raise ValueError if there is a cluster that jax
    cannot read.
    """
    try:
        from jax._src.clusters import ClusterEnv

        detect = ClusterEnv.auto_detect_unset_distributed_params
    except (ImportError, AttributeError):
        return coordinator, count, index, None
    try:
        with warnings.catch_warnings():
            # Without the package `kubernetes` jax warns in every pod, alone or not.
            warnings.filterwarnings("ignore", "Kubernetes environment detected")
            *found, devices = detect(coordinator, count, index, None, None, round(WAIT))
            # SLURM counts the tasks of a node, also where a task sees one GPU (--gpus-per-task=1)
            visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
            return *found, None if visible and "," not in visible else devices
    except Exception as e:  # from the cluster's own interface, which may be closed to us
        raise ValueError(
            f"jax detects a cluster but cannot read its settings ({first_line(e)}): give "
            "--processes 1 to run a single process, or --processes, --process and --coordinator"
        ) from e


def _int_variable(variable: str) -> int:
    value = os.environ[variable]
    if not value.isdecimal():
        raise ValueError(f"{variable} is {value!r}: expected a whole number")
    return int(value)
