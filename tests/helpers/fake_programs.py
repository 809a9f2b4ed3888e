"""Runs the launchers of launch/ with fake programs on PATH, which record their arguments."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.helpers.paths import ROOT

LAUNCH = ROOT / "launch"
LAUNCHERS = ("local.sh", "gpu.sh", "tpu_vm.sh", "slurm.sbatch", "gke.sh", "gke.yaml")
COMMAND = ["pretrain", "configs/a.py", "--run.dir", 'a "b" $c']
SLICE = ("tpu_vm.sh", "--name", "n", "--zone", "z", "--type", "v5litepod-8")
SET = ("gke.sh", "--name", "n", "--image", "i", "--claim", "c", "--hosts", "4")

# Records its arguments, then does what its own part says. Without site-packages it starts faster.
FAKE = """#!{python} -IS
import json, os, pathlib, shutil, subprocess, sys
home, name, args = pathlib.Path(os.environ["FAKE"]), pathlib.Path(sys.argv[0]).name, sys.argv[1:]
with (home / "calls").open("a") as f:
    f.write(json.dumps([name, *args]) + "\\n")
{part}
"""


def fake(repo: Path, name: str, part: str = "", folder: str = "fake/bin") -> None:
    file = repo / folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(FAKE.format(python=sys.executable, part=part))
    file.chmod(0o755)


def launch(repo: Path, *args: str, **more: Any) -> subprocess.CompletedProcess[str]:
    command = [str(repo / "launch" / args[0]), *args[1:]]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=repo, **more)


def calls(repo: Path, name: str = "") -> list[list[str]]:
    file = repo / "fake" / "calls"
    read = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    return [call[1:] for call in read if call[0] == name] if name else read


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)
