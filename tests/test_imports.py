"""Imports between packages run downwards only."""

import ast
import functools
import subprocess
import symtable
import sys
from pathlib import Path

import pytest

from tests.helpers.paths import ROOT

PACKAGE = ROOT / "bert_jax"
ORDER = (  # each may import those before it
    "utils",
    "config",
    "data",
    "distributed",
    "model",
    "objectives",
    "optim",
    "tasks",
    "checkpoint",
    "convert",
    "inference",
    "training",
    "perf",
    "cli",
)


def imported(file: Path) -> set[str]:
    """Packages of bert_jax that a file imports, inside functions too; "bert_jax" for the names
    of the top level."""
    packages = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "bert_jax":
            parts = str(node.module).split(".")
            names = [parts[1]] if len(parts) > 1 else [a.name for a in node.names]
            packages |= {n if n in ORDER else "bert_jax" for n in names}
        elif isinstance(node, ast.Import):
            packages |= {a.name.split(".")[1] for a in node.names if a.name.startswith("bert_jax.")}
    return packages


def test_the_package_holds_packages_alone() -> None:
    modules = {p.name for p in PACKAGE.glob("*.py")}
    assert modules == {"__init__.py", "__main__.py"}
    assert {p.parent.name for p in PACKAGE.glob("*/__init__.py")} == set(ORDER)


@pytest.mark.parametrize("package", ORDER)
def test_imports_go_down(package: str) -> None:
    below = set(ORDER[: ORDER.index(package)]) | {package}
    lazy = {"bert_jax"} if package == "cli" else set()  # bert_jax.load, on first use
    for file in (PACKAGE / package).rglob("*.py"):
        up = imported(file) - below - lazy
        assert not up, f"{file.relative_to(ROOT)} imports {sorted(up)}"


def test_configs_import_the_config_package_alone() -> None:
    for file in (ROOT / "configs").glob("*.py"):
        assert imported(file) <= {"config"}, file


@functools.cache
def names_in(module: str) -> set[str]:
    """The names that can be imported from a module of this repository."""
    path = ROOT.joinpath(*module.split("."))
    files = {p.stem for p in path.iterdir()} if path.is_dir() else set()
    source = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    code = source.read_text() if source.is_file() else ""
    symbols = symtable.symtable(code, str(source), "exec").get_symbols()
    return files | {s.get_name() for s in symbols if s.is_assigned() or s.is_imported()}


@pytest.mark.parametrize("folder", ["benchmarks", "study"])
def test_scripts_import_names_that_exist(folder: str) -> None:
    """Most scripts run for minutes, so that no test runs them."""
    for file in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            module = str(getattr(node, "module", ""))
            if module.split(".")[0] not in ("bert_jax", "benchmarks", "study", "tests"):
                continue
            assert isinstance(node, ast.ImportFrom)
            missing = {alias.name for alias in node.names} - names_in(module)
            assert not missing, f"{file.relative_to(ROOT)}: {module} has no {sorted(missing)}"


@pytest.mark.parametrize(
    "module", ["bert_jax", "bert_jax.config", "bert_jax.tasks", "bert_jax.data.prepare"]
)
def test_data_and_config_do_without_jax(module: str) -> None:
    code = f"import sys, {module}; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
