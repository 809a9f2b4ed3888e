"""The architecture page and the API reference describe the packages that there are."""

import ast
import dataclasses
import re
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import yaml

from bert_jax.cli.main import COMMANDS
from bert_jax.config import Experiment
from bert_jax.utils.shipped import shipped_configs
from tests.helpers.paths import ROOT
from tests.test_imports import ORDER

PACKAGE = ROOT / "bert_jax"
API = ROOT / "docs" / "api"
MODULES = re.findall(
    r"^::: (bert_jax\S*)$",
    "\n".join(p.read_text(encoding="utf-8") for p in sorted(API.glob("*.md"))),
    re.MULTILINE,
)
# Packages whose modules are no library: the command line and small helpers.
INTERNAL = {"cli", "utils"}
# Methods that two protocols document for the classes that implement them.
PROTOCOLS = {
    "Objective": {"init", "corrupt", "weights", "counts", "terms", "encoder", "mask_filler"},
    "Data": {"config", "vocabulary", "warm_start"},
}


def module_file(module: str) -> Path:
    path = ROOT.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def undocumented(body: list[ast.stmt], prefix: str = "") -> Iterator[str]:
    """Public functions and classes without a docstring. A method that implements a protocol, as
    MaskedObjective.init does Objective.init, has the protocol's."""
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            implements = any(
                prefix.endswith(f"{protocol}.")
                and prefix != f"{protocol}."
                and node.name in methods
                for protocol, methods in PROTOCOLS.items()
            )
            if ast.get_docstring(node) is None and not implements:
                yield prefix + node.name
            if isinstance(node, ast.ClassDef):
                yield from undocumented(node.body, f"{prefix}{node.name}.")


def test_the_site_lists_every_page() -> None:
    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]
    pages = set(re.findall(r"'([\w/.]+\.md)'", str(nav)))
    made = {"index.md", "contributing.md", "changelog.md", "security.md"}  # docs/_hooks/pages.py
    docs = ROOT / "docs"
    assert pages - made == {p.relative_to(docs).as_posix() for p in docs.rglob("*.md")}


def test_the_architecture_page_lists_the_packages_in_import_order() -> None:
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([\w/]+)/` \|.*\| (`.*`) \|$", text, re.MULTILINE)
    assert [name for name, _ in rows if "/" not in name] == list(ORDER)
    for name, files in rows:
        for file in re.findall(r"`([^`]+)`", files):
            assert (PACKAGE / name / file).exists(), f"{name}/{file}"
    packages = {p.parent.relative_to(PACKAGE).as_posix() for p in PACKAGE.rglob("__init__.py")}
    assert {name for name, _ in rows} <= packages - {"."}


def test_the_page_of_commands_lists_all_commands_sections_and_shipped_configs() -> None:
    text = (ROOT / "docs/commands.md").read_text(encoding="utf-8")
    commands, _, configs = text.partition("## Configs")
    assert re.findall(r"^\| `(\w+)`", commands, re.MULTILINE) == list(COMMANDS)
    sections = [f.name for f in dataclasses.fields(Experiment)]
    table, _, shipped = configs.partition("**Shipped configs**")
    assert sorted(re.findall(r"^\| `(\w+)`", table, re.MULTILINE)) == sorted(sections)
    rows = "".join(re.findall(r"^\| (`.*?) \|", shipped, re.MULTILINE))
    patterns = re.findall(r"`([\w*]+)`", rows)
    names = shipped_configs()
    assert not [n for n in names if not any(fnmatch(n, p) for p in patterns)]
    assert not [p for p in patterns if not any(fnmatch(n, p) for n in names)]


def test_the_reference_covers_every_library_package() -> None:
    assert {m.split(".")[1] for m in MODULES} == set(ORDER) - INTERNAL
    assert len(MODULES) == len(set(MODULES))


def test_every_entry_of_the_reference_has_a_docstring() -> None:
    trees = {m: ast.parse(module_file(m).read_text(encoding="utf-8")) for m in MODULES}
    assert not [m for m, tree in trees.items() if not ast.get_docstring(tree)]
    assert not [f"{m}.{name}" for m, tree in trees.items() for name in undocumented(tree.body)]
