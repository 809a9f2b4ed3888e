"""Several real processes on this machine train one model, or say why not."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bert_jax.cli import run_commands
from bert_jax.config import BERT, replace, to_dict
from bert_jax.distributed import initialize, rendezvous
from bert_jax.distributed.process_info import ProcessInfo, detect_process
from bert_jax.utils.errors import RunError
from tests.helpers import cheap_compiles, toy_tasks
from tests.helpers.cli_runner import call
from tests.helpers.compare import metric_lines
from tests.helpers.marks import NIGHTLY
from tests.helpers.paths import ROOT
from tests.helpers.ports import free_port

ABORTED = -signal.SIGABRT  # a shell says 134


class Processes:
    """Processes `indices` (None: all) of `count`, each with `devices` virtual devices."""

    def __init__(
        self,
        folder: Path,
        count: int,
        indices: tuple[int, ...] | None = None,
        *,
        devices: int = 1,
        steps: int = 3,
        save_every: int = 100,
        mesh: str = "-1,1,1",
        wait: float = 120,
        **environment: str,
    ) -> None:
        folder.mkdir(exist_ok=True)
        port = free_port()
        self.started: dict[int, subprocess.Popen] = {}
        for i in indices if indices is not None else range(count):
            variables = {
                "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}",
                "JAX_NUM_PROCESSES": str(count),
                "JAX_PROCESS_ID": str(i),
                "JAX_PLATFORMS": "cpu",
                "XLA_FLAGS": cheap_compiles.xla_flags(devices),
                "WAIT": str(wait),
                "HEARTBEAT_TIMEOUT": "10",
            }
            arguments = folder, steps, save_every, mesh, 1e-3
            self.started[i] = subprocess.Popen(
                [sys.executable, "-m", "tests.helpers.multiprocess_worker", *map(str, arguments)],
                env=os.environ | variables | environment,
                cwd=ROOT,
                stderr=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                text=True,
            )

    def wait(self, timeout: float = 300) -> dict[int, tuple[int, str]]:
        """Exit status and standard error of each."""
        try:
            errors = {i: p.communicate(timeout=timeout)[1] for i, p in self.started.items()}
        finally:
            for p in self.started.values():
                p.kill()
        return {i: (p.returncode, errors[i]) for i, p in self.started.items()}

    def succeed(self) -> None:
        ended = self.wait()
        assert [status for status, _ in ended.values()] == [0] * len(ended), ended

    def wait_for_steps(self, folder: Path, count: int) -> None:
        log, deadline = folder / "metrics.jsonl", time.monotonic() + 300
        while not log.exists() or len(log.read_text().splitlines()) < count:
            assert time.monotonic() < deadline
            assert all(p.poll() is None for p in self.started.values())
            time.sleep(0.05)


@pytest.fixture(scope="module")
def single_process_run(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    """The same run by one process that has all four devices."""
    folder = tmp_path_factory.mktemp("alone")
    Processes(folder, 1, devices=4).succeed()
    return metric_lines(folder)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("count", "mesh", "parts"),
    [(2, "-1,1,1", 2), pytest.param(4, "1,2,2", 2, marks=NIGHTLY)],
    ids=["2", "4, tensor"],
)
def test_several_processes_train_as_one(
    count: int, mesh: str, parts: int, tmp_path: Path, single_process_run: list[dict]
) -> None:
    """The same losses; parts of the batch that are disjoint and together the batch, shared by
    the processes that differ along `tensor` alone; one log, one checkpoint."""
    Processes(tmp_path, count, devices=4 // count, mesh=mesh).succeed()
    for line, expected in zip(metric_lines(tmp_path), single_process_run, strict=True):
        assert line["loss"] == pytest.approx(expected["loss"], rel=1e-6)
        if "eval_loss" in expected:
            assert line["eval_loss"] == pytest.approx(expected["eval_loss"], rel=1e-6)
    read = [json.loads((tmp_path / f"rows-{i}.json").read_text()) for i in range(count)]
    for step in range(3):
        shares = {tuple(process[step]) for process in read}
        assert len(shares) == parts
        assert len({row for share in shares for row in share}) == sum(map(len, shares)) == 12
    assert (tmp_path / "checkpoints/3/manifest.json").exists()


@pytest.mark.slow
@pytest.mark.nightly
def test_two_processes_train_on_the_pairs_of_both(tmp_path: Path) -> None:
    """The same loss, gradient norm and false negatives as one process, which takes the batch at
    once; the two take it in micro-batches. Dropout is on."""
    lines = []
    for count, accumulate in ((1, 1), (2, 3)):
        folder = tmp_path / str(count)
        Processes(folder, count, devices=2 // count, PAIRS=str(accumulate)).succeed()
        lines.append(metric_lines(folder))
    for alone, together in zip(*lines, strict=True):
        assert alone["false_negatives"] > 0
        for name in ("loss", "gradient_norm", "false_negatives", "task_accuracy"):
            assert together[name] == pytest.approx(alone[name], rel=1e-5)


@pytest.mark.slow
@pytest.mark.nightly
def test_a_killed_run_on_pairs_resumes_bit_for_bit(tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    options: Any = dict(steps=60, save_every=5, PAIRS="2")
    Processes(whole, 1, **options).succeed()
    run = Processes(killed, 1, **options)
    run.wait_for_steps(killed, 12)
    run.started[0].kill()
    assert run.wait()[0][0] == -signal.SIGKILL
    Processes(killed, 1, **options).succeed()
    assert metric_lines(killed) == metric_lines(whole)
    params, expected = (np.load(f / "params-0.npz") for f in (killed, whole))
    assert all(params[k].tobytes() == expected[k].tobytes() for k in expected.files)


@pytest.mark.slow
@pytest.mark.nightly
def test_a_run_resumes_with_another_number_of_processes(tmp_path: Path) -> None:
    """As if nothing had happened: the same batches, the same losses."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    for folder, count, steps in ((whole, 1, 6), (parts, 2, 2), (parts, 1, 4), (parts, 2, 6)):
        Processes(folder, count, devices=4 // count, steps=steps).succeed()
    assert [line["step"] for line in metric_lines(parts)] == [1, 2, 3, 4, 5, 6]
    for line, expected in zip(metric_lines(parts), metric_lines(whole), strict=True):
        for name in sorted(line.keys() & expected.keys() & {"loss", "eval_loss"}):
            assert line[name] == pytest.approx(expected[name], rel=1e-6)


@pytest.mark.slow
def test_a_signal_to_one_stops_all_at_one_step(tmp_path: Path) -> None:
    processes = Processes(tmp_path, 2, steps=100_000)
    processes.wait_for_steps(tmp_path, 2)
    processes.started[1].send_signal(signal.SIGTERM)
    ended = processes.wait()
    assert [status for status, _ in ended.values()] == [143, 143], ended
    (saved,) = (p for p in (tmp_path / "checkpoints").iterdir() if p.name.isdigit())
    assert int(saved.name) == metric_lines(tmp_path)[-1]["step"]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    Processes(folder, 3, steps=80, save_every=20).succeed()
    return folder


@pytest.mark.slow
@pytest.mark.nightly
@pytest.mark.parametrize(
    ("lost", "name"), [(1, "Task 1 heartbeat timeout"), (0, "the leader task")], ids=["1", "0"]
)
def test_a_lost_process_ends_the_others_which_name_it_and_the_run_resumes(
    lost: int, name: str, tmp_path: Path, undisturbed: Path
) -> None:
    """Within 120 seconds, with status 134; started again, the run ends bit for bit as one that
    nobody disturbed."""
    processes = Processes(tmp_path, 3, steps=80, save_every=20)
    processes.wait_for_steps(tmp_path, 25)
    processes.started[lost].kill()
    ended = processes.wait(timeout=120)
    for i in {0, 1, 2} - {lost}:
        status, error = ended[i]
        assert status == ABORTED, error
        assert name in error
        assert "process 0 (the leader task in jax's messages) runs on 127.0.0.1:" in error
    Processes(tmp_path, 3, steps=80, save_every=20).succeed()
    assert metric_lines(tmp_path) == metric_lines(undisturbed)
    for i in range(3):
        params, expected = (np.load(f / f"params-{i}.npz") for f in (tmp_path, undisturbed))
        assert params.files == expected.files
        assert all(params[k].tobytes() == expected[k].tobytes() for k in expected.files)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("failing", "count"), [(1, 2), *(pytest.param(i, 3, marks=NIGHTLY) for i in (0, 1))]
)
def test_a_process_that_fails_alone_ends_with_its_own_status(
    failing: int, count: int, tmp_path: Path
) -> None:
    """It does not wait for the others; jax ends them."""
    processes = Processes(tmp_path, count, FAIL=str(failing))
    ended = processes.wait(timeout=120)
    for i, (status, error) in ended.items():
        assert status == (1 if i == failing else ABORTED), error
    assert "KeyError: 'a defect of this process alone'" in ended[failing][1]


@pytest.mark.slow
def test_processes_that_fail_alike_end_with_their_own_status(tmp_path: Path) -> None:
    for status, error in Processes(tmp_path, 2, mesh="5,1,1").wait().values():
        assert status == 2, error
        assert "needs 5 devices, found 2" in error


# The same between threads, of which fewer start: test_rendezvous.py.


@pytest.mark.slow
@pytest.mark.nightly
def test_a_process_that_does_not_come_is_named(tmp_path: Path) -> None:
    begin = time.monotonic()
    ended = Processes(tmp_path, 3, (0, 2), wait=8).wait()
    assert time.monotonic() - begin < 60
    for status, error in ended.values():
        assert status == 1
        assert "1 of 3 processes did not connect in 8 seconds: 1." in error


def test_processes_with_different_flags_are_refused() -> None:
    """Before jax starts. Paths of one process's own may differ."""
    port = free_port()

    def start(index: int) -> None:
        experiment = replace(BERT, data=dict(path=f"/disk{index}/corpus"))
        process = ProcessInfo(f"127.0.0.1:{port}", 2, index)
        with initialize.connect(process, experiment, {"--seeds": 2 + index}, wait=20):
            raise AssertionError

    with ThreadPoolExecutor(2) as pool:
        for future in [pool.submit(start, i) for i in range(2)]:
            with pytest.raises(ValueError, match="differently: --seeds is 2 in process 0 and 3 in"):
                future.result(30)


@pytest.mark.parametrize(
    ("mixes", "differ"),
    [
        (("/a/x=0.8,/a/y=.2", "/b/x=.8,/b/y=0.20"), False),
        (("/a/x=0.8,/a/y=0.2", "/a/x=0.2,/a/y=0.8"), True),
    ],
)
def test_paths_of_a_mix_may_differ_and_its_weights_may_not(mixes: Any, differ: bool) -> None:
    configs = [replace(BERT, data=dict(mix=mix)) for mix in mixes]
    requests = {i: {"config": to_dict(c), "flags": {}} for i, c in enumerate(configs)}
    message = initialize._compare(requests)
    assert (message is not None) == differ
    assert message is None or "data.mix is '/a/x=0.8,/a/y=0.2'" in message


@pytest.mark.parametrize("index", [0, 1])
def test_an_error_of_the_first_process_is_one_of_all(
    index: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None waits for a number that does not come."""

    def read() -> int:
        raise OSError(5, "Input/output error")

    def broadcast(own: np.ndarray) -> np.ndarray:
        return own if index == 0 else np.array([initialize.FAILED], np.int64).view(np.uint8)

    monkeypatch.setattr("jax.process_count", lambda: 2)
    monkeypatch.setattr("jax.process_index", lambda: index)
    monkeypatch.setattr(initialize.multihost_utils, "broadcast_one_to_all", broadcast)
    with pytest.raises(OSError if index == 0 else RunError, match=r"Input/output|process 0 failed"):
        initialize.broadcast_from_first(read)


def test_processes_that_read_different_models_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    hashes = np.zeros((2, 32), np.uint8)
    monkeypatch.setattr("jax.process_count", lambda: 2)
    monkeypatch.setattr(initialize.multihost_utils, "process_allgather", lambda _: hashes)
    initialize.check_same_content("run.init m", lambda: "00" * 32)
    hashes[1] = 255
    with pytest.raises(ValueError, match=r"run\.init m is not the same model in all processes"):
        initialize.check_same_content("run.init m", lambda: "00" * 32)


def test_finetune_compares_its_seeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """No config holds them. Nothing is written before all processes agree."""
    toy_tasks.write_model_dir(tmp_path / "model")
    toy_tasks.write_task_dir(tmp_path / "data", "classification")

    def refuse(address: Any, count: int, index: int, request: Any, *rest: Any) -> None:
        raise RunError(f"process {index} of {count}: {request['flags']}")

    monkeypatch.setattr(rendezvous, "meet", refuse)
    monkeypatch.chdir(tmp_path)
    command = ["finetune", ROOT / "configs/finetune.py", "--init", "model", "--data", "data"]
    command += ["--task", "classification", "--run.dir", "run", "--seeds", "3"]
    command += ["--processes", "2", "--process", "1", "--coordinator", "127.0.0.1:1"]
    assert call(*command, "--heartbeat-timeout", "30") == 1
    expected = "process 1 of 2: {'--heartbeat-timeout': 30, '--seeds': 3}"
    assert expected in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


SLURM = {
    "SLURM_JOB_ID": "5000",
    "SLURM_STEP_NODELIST": "node[001-002]",
    "SLURM_NTASKS": "2",
    "SLURM_PROCID": "1",
    "SLURM_LOCALID": "0",
    "SLURM_STEP_NUM_NODES": "2",
}


def test_the_process_is_detected(monkeypatch: pytest.MonkeyPatch) -> None:
    """From arguments, variables and, as jax finds them, clusters."""
    assert detect_process() is None
    assert detect_process(2, 1, "host:1") == ProcessInfo("host:1", 2, 1)
    for name, value in SLURM.items():
        monkeypatch.setenv(name, value)
    assert detect_process() == ProcessInfo("node001:62344", 2, 1, (0,))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")  # --gpus-per-task=1: the only GPU that it sees
    assert detect_process() == ProcessInfo("node001:62344", 2, 1)
    assert detect_process(count=1) is None
    monkeypatch.setenv("SLURM_NTASKS", "1")
    monkeypatch.setenv("SLURM_PROCID", "0")
    assert detect_process() is None


@pytest.mark.parametrize("index", [0, 1])
def test_the_process_that_jax_counts_as_0_logs(
    index: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A TPU's runtime may number the processes otherwise than they were called."""
    monkeypatch.setattr(rendezvous, "meet", lambda *_: None)
    monkeypatch.setattr(initialize, "_start_jax", lambda *_: None)
    monkeypatch.setattr("jax.distributed.shutdown", lambda: None)
    monkeypatch.setattr("jax.process_index", lambda: 1 - index)
    monkeypatch.setattr(run_commands.logs, "configure", lambda: print("logs"))
    monkeypatch.setattr(run_commands.logs, "show_errors_only", lambda: print("errors only"))
    monkeypatch.setattr("bert_jax.training.run_summary.summary", lambda _: "summary")
    options = run_commands.Processes(2, index, "host:1")
    assert options.train(BERT, lambda: print("fit")) == 0
    out, err = capsys.readouterr()
    lines = {0: ["errors only", "fit"], 1: ["errors only", "logs", "fit", "summary"]}
    assert out.splitlines() == lines[index]
    assert ("jax counts process 1 as 0: it logs and writes the run folder" in err) == (index == 1)


def test_a_pod_of_an_indexed_job_is_detected(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kubernetes sets its index and its name. The count must be given."""
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "3")
    monkeypatch.setattr(socket, "getfqdn", lambda: "n-worker-0-3.n.default.svc.cluster.local")
    assert detect_process() is None  # a job of runs that are each alone
    monkeypatch.setenv("JAX_NUM_PROCESSES", "4")
    first = "n-worker-0-0.n.default.svc.cluster.local:8476"
    assert detect_process() == ProcessInfo(first, 4, 3)
    assert detect_process(index=1, coordinator="host:1") == ProcessInfo("host:1", 4, 1)
    monkeypatch.setattr(socket, "getfqdn", lambda: "n-worker-0-3")
    with pytest.raises(ValueError, match="give --coordinator"):
        detect_process()


def test_a_pod_without_the_kubernetes_package_is_alone_and_gets_no_warning(
    monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setitem(sys.modules, "kubernetes", None)
    assert detect_process() is None
    assert not recwarn


def test_a_cluster_that_jax_cannot_read_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a pod that may not ask Kubernetes about itself."""
    monkeypatch.setenv("SLURM_JOB_ID", "5000")
    for name in ("SLURM_STEP_NODELIST", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID"):
        monkeypatch.setenv(name, "?")
    monkeypatch.setenv("SLURM_STEP_NUM_NODES", "2")
    with pytest.raises(ValueError, match=r"cannot read its settings .*: give --processes 1 to run"):
        detect_process()
    assert detect_process(count=1) is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((2, None, None), r"give --coordinator \(or JAX_COORDINATOR_ADDRESS\) and --process"),
        ((2, 2, "host:1"), "--process is 2 of 2: expected 0 to count - 1"),
        ((2, 1, "host"), "--coordinator is 'host': expected HOST:PORT"),
    ],
)
def test_incomplete_or_wrong_arguments_are_refused(arguments: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        detect_process(*arguments)
