"""The launchers from end to end, with fake programs that record their arguments."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.helpers import toy_tasks
from tests.helpers.paths import ROOT

LAUNCH = ROOT / "launch"
LAUNCHERS = ("local.sh", "gpu.sh", "tpu_vm.sh", "slurm.sbatch", "gke.sh", "gke.yaml")
COMMAND = ["pretrain", "configs/a.py", "--run.dir", 'a "b" $c']

# Records its arguments, then does what its own part says.
FAKE = """#!{python}
import json, os, pathlib, shutil, subprocess, sys
home, name, args = pathlib.Path(os.environ["FAKE"]), pathlib.Path(sys.argv[0]).name, sys.argv[1:]
with (home / "calls").open("a") as f:
    f.write(json.dumps([name, *args]) + "\\n")
{part}
"""

# A slice of two workers, folders that come and go with it. A describe takes the next state.
GCLOUD = """
flags = dict(a[2:].split("=", 1) for a in args if a.startswith("--") and "=" in a)
verb, states = args[3], home / "states"
now = states.read_text().split() if states.exists() else []
workers = [home / "0", home / "1"]
if verb == "create":
    states.write_text("WAITING_FOR_RESOURCES PROVISIONING ACTIVE")
elif verb == "describe":
    if not now:
        sys.exit("not found")
    print(now[0])
    states.write_text(" ".join(now[1:] or now))
    for worker in workers:
        worker.mkdir(exist_ok=True)
elif verb == "delete":
    states.unlink()
    for worker in workers:
        shutil.rmtree(worker)
elif now != ["ACTIVE"]:
    sys.exit(255)
elif verb == "scp":
    for worker in workers:
        shutil.copy(args[4], worker)
else:
    for worker in workers if flags["worker"] == "all" else workers[:1]:
        done = subprocess.run(["bash", "-c", flags["command"]], cwd=worker)
        if done.returncode:
            sys.exit(done.returncode)
"""

# `python3.12 -m venv .venv` makes programs that record too; the first runs of bert-jax on worker
# 0 are preempted after a while.
PYTHON = """
made = pathlib.Path(args[2]) / "bin"
made.mkdir(parents=True)
for other in ("pip", "python", "bert-jax"):
    shutil.copy(home / "bin" / other, made)
"""
BERT_JAX = """
place = pathlib.Path.cwd().parent.name
print("training on", place, flush=True)
left = home / "ends"
if place == "0":
    first, *rest = left.read_text().split()
    left.write_text(" ".join(rest))
    if first == "143":
        (home / "states").write_text("SUSPENDING SUSPENDED")
    sys.exit(int(first))
"""


@pytest.fixture
def repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with the launchers alone, and an empty folder of fake programs on PATH."""
    for name in ("launch", "bert_jax", "configs", "fake/bin"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("pyproject.toml", "requirements.txt", "README.md", "LICENSE"):
        (tmp_path / name).touch()
    for name in LAUNCHERS:
        shutil.copy(LAUNCH / name, tmp_path / "launch")
    monkeypatch.setenv("FAKE", str(tmp_path / "fake"))
    monkeypatch.setenv("PATH", f"{tmp_path / 'fake' / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("PAUSE", "0")
    return tmp_path


def fake(repo: Path, name: str, part: str = "", folder: str = "fake/bin") -> None:
    file = repo / folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(FAKE.format(python=sys.executable, part=part))
    file.chmod(0o755)


def launch(repo: Path, *args: str, **more: Any) -> subprocess.CompletedProcess[str]:
    command = [str(repo / "launch" / args[0]), *args[1:]]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=repo, **more)


def calls(repo: Path, name: str = "") -> list[list[str]]:
    file = repo / "fake" / "calls"
    read = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    return [call[1:] for call in read if call[0] == name] if name else read


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture
def cloud(repo: Path) -> Path:
    for name, part in (("gcloud", GCLOUD), ("python3.12", PYTHON), ("bert-jax", BERT_JAX)):
        fake(repo, name, part)
    fake(repo, "python", "print('1.2.3')")
    for name in ("pip", "gcsfuse"):
        fake(repo, name)
    fake(repo, "mountpoint", "sys.exit(1)")
    return repo


SLICE = ("tpu_vm.sh", "--name", "n", "--zone", "z", "--type", "v5litepod-8")


def verbs(repo: Path) -> list[str]:
    """The verbs of the gcloud calls, without those that wait."""
    return [v for v in (call[3] for call in calls(repo, "gcloud")) if v != "describe"]


def test_a_preempted_slice_is_requested_again_and_the_run_resumes(cloud: Path) -> None:
    (cloud / "fake" / "ends").write_text("143 143 0")
    done = launch(cloud, *SLICE, "--spot", "--bucket", "b", "--", *COMMAND)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("the slice was preempted") == 2
    assert "training on 0" in done.stdout
    life = [v for v in verbs(cloud) if v in ("create", "scp", "delete")]
    assert life == ["create", "scp", "delete"] * 3
    created = next(c for c in calls(cloud, "gcloud") if "create" in c)
    assert created[4:] == [
        "n", "--zone=z", "--node-id=n", "--accelerator-type=v5litepod-8",
        "--runtime-version=v2-alpha-tpuv5-lite", "--spot",
    ]  # fmt: skip
    assert calls(cloud, "bert-jax") == [COMMAND] * 6  # two workers, word for word
    assert [c[-2:] for c in calls(cloud, "gcsfuse")] == [["b", "bucket"]] * 6
    assert ["-q", "install", "jax[tpu]==1.2.3"] in calls(cloud, "pip")


def test_a_run_that_fails_keeps_its_slice_and_its_status(cloud: Path) -> None:
    """Wrong input is no preemption: nothing is tried again."""
    (cloud / "fake" / "ends").write_text("2")
    done = launch(cloud, *SLICE, "--", *COMMAND)
    assert done.returncode == 2
    assert "the slice is still there" in done.stderr
    assert "delete" not in verbs(cloud)
    assert launch(cloud, *SLICE, "--delete").returncode == 0
    assert verbs(cloud)[-1] == "delete"


def test_a_run_that_is_under_way_is_followed(cloud: Path) -> None:
    (cloud / "fake" / "states").write_text("ACTIVE")
    place = cloud / "fake" / "0" / "bert_jax"
    place.mkdir(parents=True)
    (place / "log").write_text("from before\n")
    lasting = "until [ -e enough ]; do sleep .05; done; echo 0 > status"
    training = subprocess.Popen(["sh", "-c", lasting], cwd=place)
    (place / "pid").write_text(str(training.pid))
    child = subprocess.Popen(
        [str(cloud / "launch" / SLICE[0]), *SLICE[1:], "--keep", "--", *COMMAND],
        stdout=subprocess.PIPE, text=True, cwd=cloud,
    )  # fmt: skip
    until(lambda: verbs(cloud) == ["ssh"] * 2)
    (place / "enough").touch()
    training.wait()  # as a zombie it would look alive
    out, _ = child.communicate(timeout=60)
    assert child.returncode == 0
    assert out == "from before\n"
    assert verbs(cloud) == ["ssh"] * 3


def test_gpus_of_one_machine_need_one_process(repo: Path) -> None:
    fake(repo, "python", "sys.exit('import jax_cuda13_plugin' in args[-1])", ".venv/bin")
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
variables = {k: v for k, v in os.environ.items() if k.startswith("JAX_")}
(home / os.environ["HOST"]).write_text(json.dumps(variables))
time.sleep(float(os.environ.get("LASTS", 0)))
"""


def fake_machines(repo: Path) -> None:
    fake(repo, "ssh", SSH)
    fake(repo, "python", folder=".venv/bin")
    fake(repo, "bert-jax", RECORD, ".venv/bin")


def test_processes_on_several_machines_get_the_coordinator_and_their_index(repo: Path) -> None:
    fake_machines(repo)
    assert launch(repo, "gpu.sh", "--hosts", "x,y", "--port", "7", "--", *COMMAND).returncode == 0
    assert calls(repo, "bert-jax") == [COMMAND] * 2
    for number, host in enumerate("xy"):
        variables = json.loads((repo / "fake" / host).read_text())
        assert variables["JAX_COORDINATOR_ADDRESS"] == "x:7"
        assert (variables["JAX_NUM_PROCESSES"], variables["JAX_PROCESS_ID"]) == ("2", str(number))


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


def test_a_job_out_of_time_is_requeued(repo: Path, monkeypatch) -> None:
    """SLURM runs the script again, from a copy elsewhere, until the run is done."""
    monkeypatch.setenv("SLURM_SUBMIT_DIR", str(repo))
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    (repo / "fake" / "ends").write_text("143 0")
    ends = 'left = home / "ends"\nfirst, *rest = left.read_text().split()\n'
    fake(repo, "srun", ends + 'left.write_text(" ".join(rest))\nsys.exit(int(first))')
    fake(repo, "scontrol")
    assert [launch(repo, "slurm.sbatch", *COMMAND).returncode for _ in range(2)] == [143, 0]
    srun = ["srun", "--kill-on-bad-exit=0", ".venv/bin/bert-jax", *COMMAND]
    assert calls(repo) == [srun, ["scontrol", "requeue", "77"], srun]


def test_a_job_that_fails_is_not_requeued(repo: Path) -> None:
    fake(repo, "srun", "sys.exit(2)")
    assert launch(repo, "slurm.sbatch", *COMMAND).returncode == 2
    assert len(calls(repo)) == 1


KUBECTL = """
if args[0] == "apply":
    (home / "applied").write_text(sys.stdin.read())
elif args[0] == "logs":
    print("training")
elif args[0] == "get":
    left = home / "ends"
    first, *rest = left.read_text().split()
    left.write_text(" ".join(rest))
    print(first.strip("-"), end="")
"""
SET = ("gke.sh", "--name", "n", "--image", "i", "--claim", "c", "--hosts", "4")


def test_a_job_set_is_followed_through_its_restarts(repo: Path) -> None:
    fake(repo, "kubectl", KUBECTL)
    (repo / "fake" / "ends").write_text("- - Completed")
    done = launch(repo, *SET, "--topology", "2x8", "--", *COMMAND)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["training"] * 3 + ["done"]
    job_set = yaml.safe_load((repo / "fake" / "applied").read_text())
    job = job_set["spec"]["replicatedJobs"][0]["template"]["spec"]
    pod = job["template"]["spec"]
    container = pod["containers"][0]
    env = {e["name"]: e.get("value") for e in container["env"]}
    assert (job_set["kind"], job_set["metadata"]["name"]) == ("JobSet", "n")
    assert (job["parallelism"], job["completions"], job["completionMode"]) == (4, 4, "Indexed")
    assert pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"] == "2x8"
    assert (container["image"], container["args"]) == ("i", COMMAND)
    assert env["JAX_COORDINATOR_ADDRESS"] == "n-worker-0-0.n:8476"
    assert (env["JAX_NUM_PROCESSES"], env["JAX_PROCESS_ID"]) == ("4", None)
    assert pod["volumes"][0]["persistentVolumeClaim"]["claimName"] == "c"


def test_a_job_set_that_fails_says_so_and_can_be_deleted(repo: Path) -> None:
    fake(repo, "kubectl", KUBECTL)
    (repo / "fake" / "ends").write_text("Failed")
    assert launch(repo, *SET, "--", *COMMAND).returncode == 2
    assert launch(repo, *SET[:3], "--delete").returncode == 0
    assert calls(repo, "kubectl")[-1] == ["delete", "jobset", "n"]


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
    assert all(len(Path(s).read_text().splitlines()) < 150 for s in scripts)
