"""The commands of the documents that start a script of this repository: it exists, and so do its
flags."""

import re
from pathlib import Path

import pytest

from tests.helpers.paths import ROOT

DOCUMENTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```\w*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"python (?:-m )?((?:benchmarks|study|tests)\b[\w./]*)([^`|;&]*)")
FLAG = re.compile(r"(?<!\S)--[a-z][a-z-]*(?=[\s=,)]|$)")


def commands(text: str) -> list[tuple[str, str]]:
    """Each script and what follows it, of the lines of code and of the text between."""
    lines = "\n".join(BLOCK.findall(text)).replace("\\\n", " ").splitlines()
    prose = " ".join(BLOCK.sub("", text).split())
    return [match for part in (*lines, prose) for match in COMMAND.findall(part)]


def source(script: str) -> str:
    """The text of a script or of all files of a package, and of the helpers beside them."""
    path = ROOT / script.removesuffix(".py").rstrip(".").replace(".", "/")
    if path.is_dir():
        assert (path / "__main__.py").is_file(), script
        return "".join(file.read_text(encoding="utf-8") for file in path.glob("*.py"))
    file = path.with_suffix(".py")
    assert file.is_file(), script
    return file.read_text(encoding="utf-8")


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: p.name)
def test_a_script_and_its_flags_exist(path: Path) -> None:
    for script, rest in commands(path.read_text(encoding="utf-8")):
        text = source(script)
        for flag in FLAG.findall(rest):
            assert f'"{flag}"' in text, f"{script} {flag}"


def test_commands_are_found_in_code_and_in_wrapped_text() -> None:
    text = (
        "As `python -m study\n--scale cpu` and:\n\n```sh\npython benchmarks/a.py \\\n  --b 1\n```\n"
    )
    assert [c[0] for c in commands(text)] == ["benchmarks/a.py", "study"]
    assert [FLAG.findall(c[1]) for c in commands(text)] == [["--b"], ["--scale"]]
