"""Several real processes on this machine are one run, or say why not."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bert_jax.distributed import initialize
from bert_jax.distributed.initialize import ProcessInfo
from tests.helpers import toy_tasks
from tests.helpers.paths import ROOT

WORKER = "tests.helpers.multiprocess_worker"
FLAGS = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def ends(started: dict[int, subprocess.Popen]) -> dict[int, tuple[int, str]]:
    """Exit status and standard error of each."""
    try:
        said = {i: p.communicate(timeout=300)[1] for i, p in started.items()}
    finally:
        for p in started.values():
            p.kill()
    return {i: (p.returncode, said[i]) for i, p in started.items()}


class Fellows:
    """Processes `numbers` of `count`, each with `devices` virtual devices."""

    def __init__(
        self,
        folder: Path,
        count: int,
        numbers: tuple[int, ...] | None = None,
        *,
        devices: int = 1,
        steps: int = 3,
        mesh: str = "-1,1,1",
        rates: tuple[float, ...] = (),
        wait: float = 120,
    ) -> None:
        folder.mkdir(exist_ok=True)
        port = free_port()
        self.started = {}
        for i in numbers if numbers is not None else range(count):
            place = {
                "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}",
                "JAX_NUM_PROCESSES": str(count),
                "JAX_PROCESS_ID": str(i),
                "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices} {FLAGS}",
                "WAIT": str(wait),
            }
            rate = rates[i] if rates else 1e-3
            self.started[i] = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "tests.helpers.multiprocess_worker",
                    folder,
                    str(steps),
                    mesh,
                    str(rate),
                ],
                env={**os.environ, **place},
                stderr=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                text=True,
            )

    def end(self) -> dict[int, tuple[int, str]]:
        return ends(self.started)


def lines(folder: Path) -> list[dict]:
    read = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "tokens_per_second"} for line in read]


def wait_for_steps(folder: Path, fellows: Fellows, count: int) -> None:
    log, until = folder / "metrics.jsonl", time.monotonic() + 300
    while not log.exists() or len(log.read_text().splitlines()) < count:
        assert time.monotonic() < until
        assert all(p.poll() is None for p in fellows.started.values())
        time.sleep(0.1)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    """The same run by one process that has all four devices."""
    folder = tmp_path_factory.mktemp("alone")
    assert Fellows(folder, 1, devices=4).end()[0][0] == 0
    return lines(folder)


@pytest.mark.parametrize(
    ("count", "mesh", "parts"),
    [(2, "-1,1,1", 2), pytest.param(4, "1,2,2", 2, marks=pytest.mark.slow)],
    ids=["2", "4, tensor"],
)
def test_several_processes_are_one(
    count: int, mesh: str, parts: int, tmp_path: Path, alone: list[dict]
) -> None:
    """The same losses; parts of the batch that are disjoint and together the batch, shared by
    the processes that differ along `tensor` alone; one log, one checkpoint."""
    ended = Fellows(tmp_path, count, devices=4 // count, mesh=mesh).end()
    assert [status for status, _ in ended.values()] == [0] * count, ended
    for mine, theirs in zip(lines(tmp_path), alone, strict=True):
        assert mine["loss"] == pytest.approx(theirs["loss"], rel=1e-6)
        if "eval_loss" in theirs:
            assert mine["eval_loss"] == pytest.approx(theirs["eval_loss"], rel=1e-6)
    read = [json.loads((tmp_path / f"rows-{i}.json").read_text()) for i in range(count)]
    for step in range(3):
        shares = {tuple(process[step]) for process in read}
        assert len(shares) == parts
        assert len({row for share in shares for row in share}) == sum(map(len, shares)) == 8
    assert (tmp_path / "checkpoints/3/manifest.json").exists()


@pytest.mark.slow
def test_a_run_goes_on_with_another_number_of_processes(tmp_path: Path) -> None:
    """As if nothing had happened: the same batches, the same losses."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    for folder, count, steps in ((whole, 1, 6), (parts, 2, 2), (parts, 1, 4), (parts, 2, 6)):
        ended = Fellows(folder, count, devices=4 // count, steps=steps).end()
        assert [status for status, _ in ended.values()] == [0] * count, ended
    assert [line["step"] for line in lines(parts)] == [1, 2, 3, 4, 5, 6]
    for mine, theirs in zip(lines(parts), lines(whole), strict=True):
        for name in sorted(mine.keys() & theirs.keys() & {"loss", "eval_loss"}):
            assert mine[name] == pytest.approx(theirs[name], rel=1e-6)


@pytest.mark.slow
def test_a_signal_to_one_stops_all_at_one_step(tmp_path: Path) -> None:
    fellows = Fellows(tmp_path, 2, steps=100_000)
    wait_for_steps(tmp_path, fellows, 2)
    fellows.started[1].send_signal(signal.SIGTERM)
    ended = fellows.end()
    assert [status for status, _ in ended.values()] == [143, 143], ended
    (saved,) = (p for p in (tmp_path / "checkpoints").iterdir() if p.name.isdigit())
    assert int(saved.name) == lines(tmp_path)[-1]["step"]


@pytest.mark.parametrize("killed", [1, pytest.param(0, marks=pytest.mark.slow)])
def test_one_that_is_killed_ends_the_other_which_names_it(killed: int, tmp_path: Path) -> None:
    fellows = Fellows(tmp_path, 2, steps=100_000)
    wait_for_steps(tmp_path, fellows, 2)
    begin = time.monotonic()
    fellows.started[killed].kill()
    status, said = fellows.end()[1 - killed]
    assert time.monotonic() - begin < 30
    assert f"process {killed} of 2 was lost" in said
    if killed:  # jax itself aborts when process 0 goes
        assert status == 1


def test_who_does_not_come_is_named(tmp_path: Path) -> None:
    ended = Fellows(tmp_path, 4, (0, 2), wait=8).end()
    for status, said in ended.values():
        assert status == 1
        assert "2 of 4 processes did not come" in said
        assert "in 8 seconds: 1, 3." in said


@pytest.mark.slow
def test_without_the_first_the_others_say_where_they_looked(tmp_path: Path) -> None:
    status, said = Fellows(tmp_path, 2, (1,), wait=2).end()[1]
    assert status == 1
    assert "process 0 was not found at 127.0.0.1:" in said


def test_processes_that_were_asked_for_different_things_are_refused(tmp_path: Path) -> None:
    for status, said in Fellows(tmp_path, 2, rates=(1e-3, 2e-3)).end().values():
        assert status == 2
        assert "optim.peak_lr is 0.001 in process 0 and 0.002 in process 1" in said


def test_processes_that_were_asked_for_different_seeds_are_refused(tmp_path: Path) -> None:
    """Which no config holds; before there is a run folder."""
    toy_tasks.model(tmp_path / "model")
    toy_tasks.task(tmp_path / "data", "classification")
    command = [sys.executable, "-m", "bert_jax", "finetune", ROOT / "configs/finetune.py"]
    command += ["--init", "model", "--task", "classification", "--data", "data", "--run.dir", "run"]
    command += ["--processes", "2", "--coordinator", f"127.0.0.1:{free_port()}"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "XLA_FLAGS": FLAGS}
    started = {}
    for i in range(2):
        asked = [*command, "--process", str(i), "--seeds", str(2 + i)]
        started[i] = subprocess.Popen(
            asked, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True
        )
    for status, said in ends(started).values():
        assert status == 2, said
        assert "--seeds is 2 in process 0 and 3 in process 1" in said
    assert not (tmp_path / "run").exists()


SLURM = {
    "SLURM_JOB_ID": "5000",
    "SLURM_STEP_NODELIST": "node[001-002]",
    "SLURM_NTASKS": "2",
    "SLURM_PROCID": "1",
    "SLURM_LOCALID": "0",
    "SLURM_STEP_NUM_NODES": "2",
}


def test_places_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """From arguments, variables and, as jax finds them, clusters."""
    assert initialize.detect_process() is None
    assert initialize.detect_process(2, 1, "host:1") == ProcessInfo("host:1", 2, 1)
    for name, value in SLURM.items():
        monkeypatch.setenv(name, value)
    assert initialize.detect_process() == ProcessInfo("node001:62344", 2, 1, (0,))
    assert initialize.detect_process(count=1) is None
    monkeypatch.setenv("SLURM_NTASKS", "1")
    monkeypatch.setenv("SLURM_PROCID", "0")
    assert initialize.detect_process() is None


def test_a_pod_of_an_indexed_job_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """By what Kubernetes tells it: its number and its name. How many there are it is told."""
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "3")
    monkeypatch.setattr(socket, "getfqdn", lambda: "n-worker-0-3.n.default.svc.cluster.local")
    assert initialize.detect_process() is None  # a job of runs that are each alone
    monkeypatch.setenv("JAX_NUM_PROCESSES", "4")
    first = "n-worker-0-0.n.default.svc.cluster.local:8476"
    assert initialize.detect_process() == ProcessInfo(first, 4, 3)
    assert initialize.detect_process(number=1, coordinator="host:1") == ProcessInfo("host:1", 4, 1)
    monkeypatch.setattr(socket, "getfqdn", lambda: "n-worker-0-3")
    with pytest.raises(ValueError, match="give --coordinator"):
        initialize.detect_process()


def test_a_pod_without_the_kubernetes_package_is_alone_and_hears_no_warning(
    monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setitem(sys.modules, "kubernetes", None)
    assert initialize.detect_process() is None
    assert not recwarn


def test_a_cluster_that_jax_cannot_read_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a pod that may not ask Kubernetes about itself."""
    monkeypatch.setenv("SLURM_JOB_ID", "5000")
    for name in ("SLURM_STEP_NODELIST", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID"):
        monkeypatch.setenv(name, "?")
    monkeypatch.setenv("SLURM_STEP_NUM_NODES", "2")
    with pytest.raises(ValueError, match=r"cannot read it .*: give --processes 1 for a run"):
        initialize.detect_process()
    assert initialize.detect_process(count=1) is None


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ((2, None, None), r"give --coordinator \(or JAX_COORDINATOR_ADDRESS\) and --process"),
        ((2, 2, "host:1"), "--process is 2 of 2: expected 0 to count - 1"),
        ((2, 1, "host"), "--coordinator is 'host': expected HOST:PORT"),
    ],
)
def test_half_a_place_is_refused(given: tuple, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        initialize.detect_process(*given)
