"""Imports run downwards only."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "bert_jax"

FLOORS = {
    -1: ["folders", "failure", "witness", "memory"],
    0: [
        "trees",
        "config",
        "lock",
        "bucket",
        "board",
        "meeting",
        "layout",
        "hlo",
        "chips",
        "compile_cache",
    ],
    1: [
        "flops",
        "collectives",
        "model",
        "corruption",
        "packing",
        "losses",
        "text",
        "processes",
        "results",
        "log",
        "flags",
        "profile",
        "manifest",
        "lease",
    ],
    2: [
        "objectives",
        "optim",
        "sharding",
        "checkpoint",
        "convert",
        "data",
        "features",
        "labelled",
        "tasks",
        "guard",
    ],
    3: ["train", "loaded", "corpora"],
    4: ["origin", "run_folder"],
    5: [
        "pretrain",
        "recipe",
        "predict",
        "report",
        "export",
        "importing",
        "inspect",
        "embed",
        "probe",
    ],
    6: ["exam", "replay", "bench", "plan"],
    7: ["finetune"],
    8: ["commands"],
    9: ["cli"],
    10: ["__init__", "__main__"],
}
FLOOR = {room: floor for floor, rooms in FLOORS.items() for room in rooms}


def room(file: Path) -> str:
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(file: Path) -> set[str]:
    """Rooms of the package that a file imports, inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("bert_jax"):
            parts = str(node.module).split(".")
            names = [parts[1]] if len(parts) > 1 else [a.name for a in node.names]
            found |= {n if n in FLOOR else "__init__" for n in names}
        elif isinstance(node, ast.Import):
            found |= {a.name.split(".")[1] for a in node.names if a.name.startswith("bert_jax.")}
    return found


@pytest.mark.parametrize("file", sorted(PACKAGE.rglob("*.py")), ids=lambda f: f.stem)
def test_imports_go_down(file: Path) -> None:
    here = room(file)
    assert here in FLOOR, f"{here} has no floor yet"
    lazy = (
        {"__init__"} if here in ("commands", "cli", "__init__") else set()
    )  # bert_jax.load, on first use
    up = {r for r in imported(file) - {here} - lazy if FLOOR[r] >= FLOOR[here]}
    assert not up or here == "__init__", f"{here} imports {sorted(up)}"


def test_configs_import_the_vocabulary_alone() -> None:
    for file in (PACKAGE.parent / "configs").glob("*.py"):
        assert imported(file) <= {"config"}, file


@pytest.mark.parametrize(
    "module", ["bert_jax", "bert_jax.config", "bert_jax.tasks", "bert_jax.text.corpus"]
)
def test_text_and_config_do_without_jax(module: str) -> None:
    code = f"import sys, {module}; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
