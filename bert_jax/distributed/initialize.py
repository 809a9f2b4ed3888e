"""Several processes that train one model: connect, agree, exit.

Before jax starts, all processes meet at the coordinator's address (`rendezvous.py`). From then on
jax's own heartbeats watch over them: when a process is lost, jax prints its number in all others
and aborts them (status 134). The same command resumes the run from its last checkpoint.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from bert_jax import config
from bert_jax.config import Experiment
from bert_jax.data import mix_weights
from bert_jax.distributed import rendezvous
from bert_jax.distributed.process_info import WAIT, ProcessInfo
from bert_jax.utils import remote
from bert_jax.utils.errors import OUT_OF_MEMORY, RunError, first_line

HEARTBEAT_TIMEOUT = 100  # seconds without a heartbeat until jax ends the others; jax's default
GRACE = 5.0  # seconds: jax aborts the others when process 0 ends, and they may fail alike
# Fields that may differ. The corpora themselves, and their weights in a mix, may not.
PER_PROCESS = ("data.path", "data.mix", "data.threads")
NOTHING, FAILED = -1, -2  # what process 0 sends instead of a number


@contextlib.contextmanager
def connect(
    process: ProcessInfo | None,
    experiment: Experiment,
    flags: dict[str, Any] | None = None,
    *,
    wait: float = WAIT,
    heartbeat_timeout: int = HEARTBEAT_TIMEOUT,
) -> Iterator[None]:
    """Run a block as one of several processes; do nothing if `process` is None.

    Raise ValueError if the processes' experiments, or their `flags` ({"--seeds": 3}), differ.
    Raise RunError if a process does not come in `wait` seconds. When one is lost in the block,
    jax aborts this one after `heartbeat_timeout` seconds.
    """
    if process is None:
        yield
        return
    if heartbeat_timeout < 1:
        raise ValueError(f"--heartbeat-timeout is {heartbeat_timeout}: expected at least 1 second")
    flags = {"--heartbeat-timeout": heartbeat_timeout, **(flags or {})}
    request = {"config": config.to_dict(experiment), "flags": flags}
    rendezvous.meet(process.address, process.count, process.index, request, _compare, wait)
    _start_jax(process, wait, heartbeat_timeout)
    if is_first() and process.index != 0:
        _print(f"jax counts process {process.index} as 0: it logs and writes the run folder")
    try:
        yield
    except Exception as e:
        if _is_from_jax(e):  # a collective fails at once when a process is lost
            _print(f"{first_line(e)}. Waiting for jax to name the lost process")
            jax.distributed.shutdown()  # jax aborts this process, unless all fail alike
        elif process.index == 0:
            time.sleep(GRACE)
        sys.excepthook = _print_and_exit
        raise
    jax.distributed.shutdown()  # waits for all


def _start_jax(process: ProcessInfo, wait: float, heartbeat_timeout: int) -> None:
    _print(
        f"this is process {process.index} of {process.count} on {socket.gethostname()}; "
        f"process 0 (the leader task in jax's messages) runs on {process.coordinator}"
    )
    # jax's handler of SIGTERM would replace the one of training/guard.
    jax.config.update("jax_enable_preemption_service", False)
    jax.distributed.initialize(
        process.coordinator,
        process.count,
        process.index,
        local_device_ids=process.devices,
        cluster_detection_method="deactivate",
        initialization_timeout=max(1, round(wait)),
        heartbeat_timeout_seconds=heartbeat_timeout,
    )


def _is_from_jax(e: BaseException | None) -> bool:
    """Whether jax's runtime raised the exception or a cause of it, and another process may be lost.
    The type does not tell: it may be a ValueError. But the message begins with a status code:
    "UNKNOWN: Gloo AllGather failed"."""
    while e is not None:
        if str(e).startswith(OUT_OF_MEMORY):  # of this process
            return False
        if re.match("[A-Z_]+: ", str(e)):
            return True
        e = e.__cause__ or e.__context__
    return False


def _print(message: str) -> None:
    print(f"bert-jax: {message}", file=sys.stderr, flush=True)


def _print_and_exit(*error: Any) -> None:
    sys.__excepthook__(*error)
    exit_process(1)


def exit_process(status: int) -> None:
    """End a process that failed by itself. jax's exit hook would wait for the others, which wait
    for this one."""
    if "jax" in sys.modules and jax.distributed.is_initialized():
        remote.clear_cache()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def is_first() -> bool:
    """Whether jax counts this process as 0, which writes what all share. A TPU's runtime numbers
    the processes by its own order, whatever they were called at the start."""
    return jax.process_index() == 0


def barrier(name: str) -> None:
    """Wait for all processes."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def broadcast_from_first(read: Callable[[], int | None]) -> int | None:
    """Call `read` in process 0 and return its result, a nonnegative number or None, in all.

    An error of `read` is raised in process 0, and a RunError in the others, which would wait.
    """
    if jax.process_count() == 1:
        return read()
    value, error = None, None
    if is_first():
        try:
            value = read()
        except Exception as e:
            error = e
    number = np.array([FAILED if error else NOTHING if value is None else value], np.int64)
    # As bytes: jax would cut the number to 32 bits, and disks are larger.
    received = multihost_utils.broadcast_one_to_all(number.view(np.uint8))
    first = int(np.asarray(received, np.uint8).view(np.int64)[0])
    if error is not None:
        raise error
    if first == FAILED:
        raise RunError("process 0 failed: its own message says why")
    return None if first == NOTHING else first


def check_same_content(name: str, content_hash: Callable[[], str]) -> None:
    """Raise ValueError in all processes if the hashes (hexadecimal) of what they have read under
    this name differ."""
    if jax.process_count() == 1:
        return
    own = np.frombuffer(bytes.fromhex(content_hash()), np.uint8)
    if (np.asarray(multihost_utils.process_allgather(own)) != own).any():
        raise ValueError(
            f"{name} is not the same model in all processes: give all of them the same files"
        )


def check_same_config(experiment: Experiment) -> None:
    """Raise ValueError in all processes if their resolved configs differ, as they do when their
    corpora differ."""
    if jax.process_count() == 1:
        return
    text = json.dumps(config.to_dict(experiment)).encode()
    max_length = int(multihost_utils.process_allgather(np.int64(len(text))).max())
    padded = np.frombuffer(text.ljust(max_length), np.uint8)
    texts = multihost_utils.process_allgather(padded)
    requests = {i: {"config": json.loads(bytes(row)), "flags": {}} for i, row in enumerate(texts)}
    if message := _compare(requests):
        raise ValueError(message)


def _compare(requests: dict[int, Any]) -> str | None:
    """Return how the processes' experiments and flags differ, or None."""
    experiments = {i: config.from_dict(Experiment, r["config"]) for i, r in requests.items()}
    differences = []
    for i in sorted(requests):
        changes = config.differences(experiments[0], experiments[i])
        for flag, value in requests[0]["flags"].items():
            if requests[i]["flags"].get(flag) != value:
                changes[flag] = value, requests[i]["flags"].get(flag)
        own = set(PER_PROCESS)
        if _mix_weights(experiments[0]) != _mix_weights(experiments[i]):
            own.remove("data.mix")
        differences += [
            f"{name} is {a!r} in process 0 and {b!r} in process {i}"
            for name, (a, b) in changes.items()
            if name not in own
        ]
    if not differences:
        return None
    more = f", and {len(differences) - 5} more" if len(differences) > 5 else ""
    return (
        f"the processes were started differently: {'; '.join(differences[:5])}{more}. "
        "Give all of them the same command and the same corpus"
    )


def _mix_weights(experiment: Experiment) -> list[float] | None:
    """The weights in `data.mix`, whose paths may differ."""
    with contextlib.suppress(ValueError):  # refused later, in all processes
        return mix_weights.given_weights(experiment.data)
    return None
