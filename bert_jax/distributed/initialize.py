"""Several processes that train one model: who belongs to it, and what happens when one is lost.

`jax.distributed` connects the devices. It waits for a missing process without saying which, and
ends by an abort when one dies. So before it starts, all processes meet at the coordinator's
address (`meeting.py`): who never came is named there, and so is what two processes were told
differently. The connections stay open; when one breaks, the others end with the name of its
process, and the same command goes on from the last checkpoint.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from bert_jax import config
from bert_jax.config import Experiment
from bert_jax.distributed import rendezvous
from bert_jax.utils import remote

WAIT = 300.0  # seconds for every process to come
ENVIRONMENT = {  # field of a Place -> variable
    "coordinator": "JAX_COORDINATOR_ADDRESS",
    "count": "JAX_NUM_PROCESSES",
    "number": "JAX_PROCESS_ID",
}
INDEX = "JOB_COMPLETION_INDEX"  # of a pod of an Indexed Job; Kubernetes sets it
PORT = 8476  # where its first pod listens
OWN = ("data.path", "data.mix", "data.threads")  # may differ; what the corpus holds may not


@dataclass(frozen=True)
class ProcessInfo:
    """One process of several."""

    coordinator: str  # host:port of process 0
    count: int
    number: int
    devices: tuple[int, ...] | None = None  # local ones that are its own; None: all

    def __post_init__(self) -> None:
        host, _, port = self.coordinator.rpartition(":")
        if not host or not port.isdecimal():
            raise ValueError(f"--coordinator is {self.coordinator!r}: expected HOST:PORT")
        if not 0 <= self.number < self.count:
            raise ValueError(f"--process is {self.number} of {self.count}: expected 0 to count - 1")


def detect_process(
    count: int | None = None, number: int | None = None, coordinator: str | None = None
) -> ProcessInfo | None:
    """Which process this one is, or None where it is alone: from the arguments; else from
    `ENVIRONMENT`; what is missing from an Indexed Job of Kubernetes whose count is known, or from
    Open MPI, SLURM, Cloud TPU or Kubernetes, as jax finds it there. ValueError: some of it is
    known, not all."""
    given: dict[str, Any] = {"coordinator": coordinator, "count": count, "number": number}
    for name, variable in ENVIRONMENT.items():
        if given[name] is None and os.environ.get(variable):
            given[name] = os.environ[variable] if name == "coordinator" else _whole(variable)
    if given["count"] == 1:
        return None
    devices = None
    if given["count"] is not None and os.environ.get(INDEX):
        number, coordinator = _of_job()
        given["number"] = number if given["number"] is None else given["number"]
        given["coordinator"] = given["coordinator"] or coordinator
    if None in given.values():
        given["coordinator"], given["count"], given["number"], devices = _detected(**given)
    if given["count"] in (None, 1) and given["coordinator"] is given["number"] is None:
        return None
    if given["count"] == 1:
        return None
    missing = [name for name, value in given.items() if value is None]
    if missing:
        flags = {"coordinator": "--coordinator", "count": "--processes", "number": "--process"}
        known = ", ".join(f"{flags[n]} {v}" for n, v in given.items() if v is not None)
        raise ValueError(
            f"one of several processes ({known}), and no cluster tells the rest: give "
            + " and ".join(f"{flags[n]} (or {ENVIRONMENT[n]})" for n in missing)
        )
    return ProcessInfo(**given, devices=None if devices is None else tuple(devices))


@contextlib.contextmanager
def connect(place: ProcessInfo | None, asked: Experiment, wait: float = WAIT) -> Iterator[None]:
    """A block in which this process is one of several; with None it is alone.

    ValueError: the processes were asked for different things. Failure: not all came in `wait`
    seconds, or one was lost while jax waited for it. One that is lost while this one works ends
    this one too, with status 1.
    """
    if place is None:
        yield
        return
    with rendezvous.join(place, config.to_dict(asked), _compare, wait):
        # Its handler of SIGTERM would take the place of guard's for as long as nobody trains.
        jax.config.update("jax_enable_preemption_service", False)
        jax.distributed.initialize(
            place.coordinator,
            place.count,
            place.number,
            local_device_ids=place.devices,
            cluster_detection_method="deactivate",
            initialization_timeout=max(1, round(wait)),
        )
        yield
        jax.distributed.shutdown()  # waits for all


def exit_process(status: int) -> None:
    """End a process whose others may go on: without waiting for them."""
    if "jax" in sys.modules and jax.distributed.is_initialized():
        remote.clear_cache()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def barrier(name: str) -> None:
    """Wait for all processes."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def broadcast_from_first(ask: Callable[[], int | None]) -> int | None:
    """What the first process answers, on all of them; a number that is not negative, or None."""
    if jax.process_count() == 1:
        return ask()
    answer = ask() if jax.process_index() == 0 else None
    number = np.array([-1 if answer is None else answer], np.int64)
    # As bytes: jax would cut the number to 32 bits, and disks are larger.
    told = multihost_utils.broadcast_one_to_all(number.view(np.uint8))
    first = int(np.asarray(told, np.uint8).view(np.int64)[0])
    return None if first < 0 else first


def check_same_config(experiment: Experiment) -> None:
    """ValueError: the processes resolved what they were asked to different experiments, as they
    do with different corpora."""
    if jax.process_count() == 1:
        return
    text = json.dumps(config.to_dict(experiment)).encode()
    longest = int(multihost_utils.process_allgather(np.int64(len(text))).max())
    padded = np.frombuffer(text.ljust(longest), np.uint8)
    texts = multihost_utils.process_allgather(padded)
    told = {i: json.loads(bytes(row)) for i, row in enumerate(texts)}
    refused = _compare(told)
    if refused:
        raise ValueError(refused)


def _compare(told: dict[int, dict[str, Any]]) -> str | None:
    """How the processes' experiments differ, if they do."""
    first = config.from_dict(Experiment, told[0])
    found = []
    for i, values in sorted(told.items()):
        changed = config.differences(first, config.from_dict(Experiment, values))
        found += [
            f"{name} is {a!r} in process 0 and {b!r} in process {i}"
            for name, (a, b) in changed.items()
            if name not in OWN
        ]
    if not found:
        return None
    more = f", and {len(found) - 5} more" if len(found) > 5 else ""
    return (
        f"the processes were started differently: {'; '.join(found[:5])}{more}. "
        "Give all of them the same command and the same corpus"
    )


def _of_job() -> tuple[int, str | None]:
    """The number of a pod of an Indexed Job, as in a JobSet, and the first one's address: they are
    called JOB-0, JOB-1, ... and find each other by a headless service. How many there are no
    variable says: without it they may as well be alone, each in its own run."""
    number = _whole(INDEX)
    pod, _, domain = socket.getfqdn().partition(".")
    job = pod.removesuffix(f"-{number}")
    return number, f"{job}-0.{domain}:{PORT}" if domain and job != pod else None


def _detected(coordinator: Any, count: Any, number: Any) -> tuple[Any, Any, Any, Any]:
    """jax's own reading of the cluster, which it offers only as part of `initialize`. ValueError:
    there is one, and jax cannot read it."""
    try:
        from jax._src.clusters import ClusterEnv

        detect = ClusterEnv.auto_detect_unset_distributed_params
    except (ImportError, AttributeError):
        return coordinator, count, number, None
    try:
        with warnings.catch_warnings():
            # Without the package `kubernetes` it says so in every pod, alone or not.
            warnings.filterwarnings("ignore", "Kubernetes environment detected")
            return detect(coordinator, count, number, None, None, round(WAIT))
    except Exception as e:  # of a cluster's own interface, which may be closed to us
        said = (str(e).splitlines() or [type(e).__name__])[0]
        raise ValueError(
            f"jax finds a cluster and cannot read it ({said}): give --processes 1 for a run that "
            "is alone, or --processes, --process and --coordinator"
        ) from e


def _whole(variable: str) -> int:
    value = os.environ[variable]
    if not value.isdecimal():
        raise ValueError(f"{variable} is {value!r}: expected a whole number")
    return int(value)
