"""The launchers of one machine and of several by SSH, and what all launchers have in common."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import toy_tasks
from tests.helpers.fake_programs import COMMAND, LAUNCH, SET, SLICE, calls, fake, launch, until


def test_gpus_of_one_machine_need_one_process(repo: Path) -> None:
    fake(repo, "python", "sys.exit('jax_cuda13_plugin' in args[-1])", ".venv/bin")
    fake(repo, "pip", folder=".venv/bin")
    fake(repo, "bert-jax", "sys.exit(143)", ".venv/bin")
    assert launch(repo, "gpu.sh", "--", *COMMAND).returncode == 143
    assert calls(repo, "pip")[0][:2] == ["install", "--quiet"]
    assert calls(repo, "bert-jax") == [COMMAND]


SSH = """
sys.exit(subprocess.run(["sh", "-c", args[2]], env=os.environ | {"HOST": args[1]}).returncode)
"""
RECORD = """
import signal, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
variables = {k: v for k, v in os.environ.items() if k.startswith(("JAX_", "XLA_", "NCCL_"))}
(home / os.environ["HOST"]).write_text(json.dumps(variables))
time.sleep(float(os.environ.get("LASTS", 0)))
"""


def fake_machines(repo: Path) -> None:
    fake(repo, "ssh", SSH)
    fake(repo, "python", folder=".venv/bin")
    fake(repo, "bert-jax", RECORD, ".venv/bin")


def test_processes_on_several_machines_get_the_coordinator_and_their_index(
    repo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_machines(repo)
    monkeypatch.setenv("XLA_FLAGS", "--a=1 --b='2 3'")
    monkeypatch.setenv("NCCL_DEBUG", "INFO")
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    assert launch(repo, "gpu.sh", "--hosts", "x,y", "--port", "7", "--", *COMMAND).returncode == 0
    assert calls(repo, "bert-jax") == [COMMAND] * 2
    for number, host in enumerate("xy"):
        variables = json.loads((repo / "fake" / host).read_text())
        assert variables["JAX_COORDINATOR_ADDRESS"] == "x:7"
        assert (variables["JAX_NUM_PROCESSES"], variables["JAX_PROCESS_ID"]) == ("2", str(number))
        assert variables["XLA_FLAGS"] == "--a=1 --b='2 3'"
        assert variables["NCCL_DEBUG"] == "INFO"
        assert variables["JAX_COMPILATION_CACHE_DIR"] == str(repo / "runs" / ".compiled")


def test_a_signal_reaches_every_machine(repo: Path) -> None:
    fake_machines(repo)
    command = [str(repo / "launch" / "gpu.sh"), "--hosts", "x,y", "--", *COMMAND]
    child = subprocess.Popen(command, env=os.environ | {"LASTS": "50"})
    until(lambda: all((repo / "fake" / host).exists() for host in "xy"))
    child.terminate()
    assert child.wait(30) == 143


# Prints its environment, sleeps, and exits with a status; SIGTERM ends it with 143.
PROCESS = """
import os, signal, sys, time
number = os.environ["JAX_PROCESS_ID"]
print(os.environ["JAX_COORDINATOR_ADDRESS"], os.environ["JAX_NUM_PROCESSES"], number, flush=True)
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
time.sleep(float(sys.argv[1]))
sys.exit(int(sys.argv[2]) if number == "1" else 0)
"""


def test_processes_on_one_machine_get_the_coordinator_and_their_index(repo: Path) -> None:
    done = launch(repo, "local.sh", "3", sys.executable, "-c", PROCESS, "0", "0")
    assert done.returncode == 0, done.stderr
    printed = sorted(line.split() for line in done.stdout.splitlines())
    assert [line[0] for line in printed] == ["[0]", "[1]", "[2]"]
    assert [line[2:] for line in printed] == [["3", "0"], ["3", "1"], ["3", "2"]]
    assert len({line[1] for line in printed}) == 1


@pytest.mark.parametrize(("gpus", "shown"), [(1, "cpu None"), (2, "None 1")])
def test_processes_share_no_gpu(
    gpus: int, shown: str, repo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where there are too few, they use the CPU, and say so."""
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    fake(repo, "nvidia-smi", f"for i in range({gpus}): print('GPU', i)")
    names = ("JAX_PLATFORMS", "JAX_LOCAL_DEVICE_IDS")
    show = f"import os; print(*map(os.environ.get, {names}))"
    done = launch(repo, "local.sh", "2", sys.executable, "-c", show)
    assert sorted(done.stdout.splitlines())[1] == f"[1] {shown}"
    assert ("all use the CPU" in done.stderr) == (gpus < 2)


def test_the_exit_status_is_that_of_the_process_that_failed(repo: Path) -> None:
    done = launch(repo, "local.sh", "2", sys.executable, "-c", PROCESS, "0", "3")
    assert done.returncode == 3, done.stderr
    assert "a process ended with status 3; the others are killed in 20 seconds" in done.stderr


def test_a_signal_reaches_every_process_on_this_machine(repo: Path) -> None:
    command = [str(repo / "launch" / "local.sh"), "2", sys.executable, "-c", PROCESS, "50", "0"]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert {child.stdout.readline()[:3] for _ in range(2)} == {"[0]", "[1]"}
    child.terminate()
    assert child.wait(30) == 143


@pytest.mark.slow
@pytest.mark.nightly
def test_two_processes_on_this_machine_fine_tune_as_one_does(tmp_path: Path) -> None:
    """With the real commands: the same losses and results, printed once."""
    toy_tasks.write_model_dir(tmp_path / "model")
    toy_tasks.write_task_dir(tmp_path / "data", "classification")
    recipe = str(LAUNCH.parent / "configs" / "finetune.py")
    command = [sys.executable, "-m", "bert_jax", "finetune", recipe, "--init", "model"]
    command += ["--task", "classification", "--data", "data", "--data.batch-size", "16"]
    command += ["--run.steps", "4", "--run.eval-every", "2", "--run.log-every", "1", "--run.dir"]
    environment = os.environ | {"PYTHONPATH": str(LAUNCH.parent), "XLA_FLAGS": ""}
    losses = {}
    for name, before in (("one", []), ("two", [str(LAUNCH / "local.sh"), "2"])):
        done = subprocess.run(
            [*before, *command, name],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("run folder") == 1
        results = json.loads((tmp_path / name / "results.json").read_text())
        lines = (tmp_path / name / "metrics.jsonl").read_text().splitlines()
        losses[name] = [results["dev"]["loss"], *(json.loads(line)["loss"] for line in lines)]
    assert losses["two"] == pytest.approx(losses["one"], rel=1e-5)


# ---- every launcher


@pytest.mark.parametrize(
    "arguments",
    [
        ("local.sh", "2", "bert-jax"),
        ("gpu.sh", "--hosts", "x,y", "--"),
        ("slurm.sbatch",),
        (*SLICE, "--"),
        (*SET, "--"),
    ],
    ids=lambda arguments: arguments[0],
)
def test_a_dry_run_prints_what_it_would_run_and_runs_nothing(arguments: tuple, repo: Path) -> None:
    for name in ("gcloud", "srun", "scontrol", "kubectl", "ssh", "bert-jax"):
        fake(repo, name, "sys.exit(1)")
    done = launch(repo, arguments[0], "--dry-run", *arguments[1:], *COMMAND)
    assert done.returncode == 0, done.stderr
    assert not calls(repo)
    assert "configs/a.py" in done.stdout
    expected = {"local.sh": "JAX_PROCESS_ID=1 bert-jax pretrain"}
    expected |= {"gpu.sh": "ssh -n y", "slurm.sbatch": "srun ", "gke.sh": "kubectl apply"}
    assert expected.get(arguments[0], "queued-resources create n") in done.stdout


@pytest.mark.parametrize("name", ["gpu.sh", "gke.sh", "tpu_vm.sh"])
def test_help_is_printed_from_the_launchers_own_folder(name: str, repo: Path) -> None:
    done = subprocess.run(
        [f"./{name}", "--help"], cwd=repo / "launch", capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert f"launch/{name}" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("local.sh", "none", "bert-jax"), "usage: launch/local.sh [--dry-run] N COMMAND"),
        (("local.sh", "2"), "N processes, at least 1"),
        (("gpu.sh",), "no command: expected -- pretrain"),
        (("gpu.sh", "--", "pretrain"), "bert-jax is missing: call make"),
        (("slurm.sbatch",), "no command: expected pretrain"),
        (("tpu_vm.sh", "--name", "n"), "--name and --zone are needed"),
        ((*SLICE[:5], "--", "pretrain"), "--type is missing"),
        ((*SLICE, "--zoom", "1"), "unknown argument --zoom"),
        (("gke.sh", "--name", "n", "--", "pretrain"), "--image, --claim and --hosts are needed"),
    ],
)
def test_wrong_arguments_are_refused(arguments: tuple, message: str, repo: Path) -> None:
    done = launch(repo, *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_scripts_are_clean() -> None:
    shellcheck = Path(sys.executable).parent / "shellcheck"
    if not shellcheck.exists():
        pytest.skip("shellcheck is not installed")
    scripts = sorted(map(str, [*LAUNCH.glob("*.sh"), *LAUNCH.glob("*.sbatch")]))
    done = subprocess.run([shellcheck, *scripts], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert all(len(Path(s).read_text().splitlines()) <= 160 for s in scripts)
