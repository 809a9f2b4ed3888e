"""The launchers of clusters: a TPU slice, SLURM and Kubernetes."""

import subprocess
from pathlib import Path

import pytest
import yaml

from tests.helpers.fake_programs import COMMAND, SET, SLICE, calls, fake, launch, until

# ---- a TPU slice

# A slice of two workers, folders that come and go with it. A describe takes the next state.
GCLOUD = """
flags = dict(a[2:].split("=", 1) for a in args if a.startswith("--") and "=" in a)
verb, states, offline = args[3], home / "states", home / "offline"
if offline.exists() and (left := int(offline.read_text())) and verb in ("describe", "ssh"):
    offline.write_text(str(left - 1))
    sys.exit("connection reset")
now = states.read_text().split() if states.exists() else []
workers = [home / "0", home / "1"]
if verb == "create":
    request = home / "request"
    states.write_text(request.read_text() if request.exists() else "PROVISIONING ACTIVE")
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
print(os.environ.get("LIBTPU_INIT_ARGS", ""), flush=True)
left = home / "ends"
if place == "0":
    first, *rest = left.read_text().split()
    left.write_text(" ".join(rest))
    if first == "143":
        (home / "states").write_text("SUSPENDING SUSPENDED")
    sys.exit(int(first))
"""


@pytest.fixture
def cloud(repo: Path) -> Path:
    for name, part in (("gcloud", GCLOUD), ("python3.12", PYTHON), ("bert-jax", BERT_JAX)):
        fake(repo, name, part)
    fake(repo, "python", "print('1.2.3')")
    for name in ("pip", "gcsfuse"):
        fake(repo, name)
    fake(repo, "mountpoint", "sys.exit(1)")
    return repo


def verbs(repo: Path) -> list[str]:
    """The verbs of the gcloud calls, without those that wait."""
    return [v for v in (call[3] for call in calls(repo, "gcloud")) if v != "describe"]


def ssh_fails(cloud: Path, times: int) -> None:
    """Let only the connections to a worker fail."""
    file = cloud / "fake" / "bin" / "gcloud"
    file.write_text(file.read_text().replace('("describe", "ssh")', '("ssh",)'))
    (cloud / "fake" / "offline").write_text(str(times))


@pytest.mark.slow
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


def test_a_lost_process_is_started_again_a_few_times(cloud: Path, monkeypatch) -> None:
    monkeypatch.setenv("LIBTPU_INIT_ARGS", "--x='a b'")
    (cloud / "fake" / "ends").write_text("134 137 134 134 134 134")
    done = launch(cloud, *SLICE, "--", *COMMAND)
    assert done.returncode == 134
    assert done.stderr.count("a process was lost: going on from the last checkpoint") == 5
    assert "the slice is still there" in done.stderr
    started = [c for c in calls(cloud, "gcloud") if any("nohup env" in a for a in c)]
    assert len(started) == 6
    assert {line.strip() for line in done.stdout.splitlines() if "--x" in line} == {"--x='a b'"}


def test_a_run_that_fails_keeps_its_slice_and_its_status(cloud: Path) -> None:
    """Wrong input is no preemption: nothing is tried again."""
    (cloud / "fake" / "ends").write_text("2")
    done = launch(cloud, *SLICE, "--", *COMMAND)
    assert done.returncode == 2
    assert "the slice is still there" in done.stderr
    assert "delete" not in verbs(cloud)
    assert launch(cloud, *SLICE, "--delete").returncode == 0
    assert verbs(cloud)[-1] == "delete"


def test_a_request_that_fails_says_why_and_is_not_made_for_ever(cloud: Path) -> None:
    (cloud / "fake" / "request").write_text("FAILED")
    done = launch(cloud, *SLICE, "--", *COMMAND)
    assert done.returncode == 2
    assert "the request failed (3 of 3): FAILED" in done.stderr
    assert "look at the quota" in done.stderr
    assert verbs(cloud) == ["create", "delete", "create", "delete", "create"]


def test_a_gcloud_that_always_fails_ends_the_script(cloud: Path) -> None:
    (cloud / "fake" / "offline").write_text("999")
    done = launch(cloud, *SLICE, "--", *COMMAND)
    assert done.returncode == 2
    assert "gcloud fails, see above: nothing was changed" in done.stderr
    assert done.stderr.count("gcloud: connection reset") == 30
    assert not verbs(cloud)


def test_a_call_that_fails_takes_no_slice_for_lost(cloud: Path) -> None:
    """Neither when it is asked for, nor when the run is followed."""
    (cloud / "fake" / "states").write_text("ACTIVE")
    (cloud / "fake" / "offline").write_text("3")
    (cloud / "fake" / "ends").write_text("0")
    for worker in "01":
        (cloud / "fake" / worker).mkdir()
    done = launch(cloud, *SLICE, "--", *COMMAND)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("gcloud: connection reset") == 3
    assert [v for v in verbs(cloud) if v != "ssh"] == ["scp", "delete"]


@pytest.mark.parametrize("offline", [0, 2])
def test_a_run_that_is_under_way_is_followed(offline: int, cloud: Path) -> None:
    """Also where it cannot be asked at first: no second run begins beside it."""
    (cloud / "fake" / "states").write_text("ACTIVE")
    place = cloud / "fake" / "0" / "bert_jax"
    place.mkdir(parents=True)
    (place / "log").write_text("from before\n")
    lasting = "until [ -e enough ]; do sleep .05; done; echo 0 > status"
    training = subprocess.Popen(["sh", "-c", lasting], cwd=place)
    (place / "pid").write_text(str(training.pid))
    ssh_fails(cloud, offline)
    child = subprocess.Popen(
        [str(cloud / "launch" / SLICE[0]), *SLICE[1:], "--keep", "--", *COMMAND],
        stdout=subprocess.PIPE, text=True, cwd=cloud,
    )  # fmt: skip
    until(lambda: verbs(cloud) == ["ssh"] * (2 + offline))
    (place / "enough").touch()
    training.wait()  # as a zombie it would look alive
    out, _ = child.communicate(timeout=60)
    assert child.returncode == 0
    assert out == "from before\n"
    assert verbs(cloud) == ["ssh"] * (3 + offline)


# ---- SLURM and Kubernetes


def test_a_job_out_of_time_is_requeued(repo: Path, monkeypatch) -> None:
    """SLURM runs the script again, from a copy elsewhere, until the run is done."""
    monkeypatch.setenv("SLURM_SUBMIT_DIR", str(repo))
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    (repo / "fake" / "ends").write_text("143 134 137 0 134")
    ends = 'left = home / "ends"\nfirst, *rest = left.read_text().split()\n'
    fake(repo, "srun", ends + 'left.write_text(" ".join(rest))\nsys.exit(int(first))')
    fake(repo, "scontrol")
    statuses = [143, 134, 137, 0]
    assert [launch(repo, "slurm.sbatch", *COMMAND).returncode for _ in statuses] == statuses
    srun, requeue = ["srun", "--kill-on-bad-exit=0", ".venv/bin/bert-jax", *COMMAND], "scontrol"
    assert calls(repo) == [*[srun, [requeue, "requeue", "77"]] * 3, srun]
    monkeypatch.setenv("SLURM_RESTART_COUNT", "10")  # lost processes end it at some time
    assert launch(repo, "slurm.sbatch", *COMMAND).returncode == 134
    assert len(calls(repo, "scontrol")) == 3


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
    assert env["JAX_COMPILATION_CACHE_DIR"] == "/data/.compiled"
    assert list(job_set["metadata"]["annotations"].values()) == ["cloud.google.com/gke-nodepool"]
    assert pod["volumes"][0]["persistentVolumeClaim"]["claimName"] == "c"


def test_a_job_set_that_fails_says_so_and_can_be_deleted(repo: Path) -> None:
    fake(repo, "kubectl", KUBECTL)
    (repo / "fake" / "ends").write_text("Failed")
    assert launch(repo, *SET, "--", *COMMAND).returncode == 2
    assert launch(repo, *SET[:3], "--delete").returncode == 0
    assert calls(repo, "kubectl")[-1] == ["delete", "jobset", "n"]
