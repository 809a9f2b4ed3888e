"""Imports, help, and messages for wrong flags: nothing here trains or reads a model."""

import importlib.metadata
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import pytest

import bert_jax
from bert_jax import config
from bert_jax.cli import main as cli
from bert_jax.cli.command import config_fields, field_names
from bert_jax.utils import platform
from tests.helpers.cli_runner import call
from tests.helpers.paths import ROOT

TINY = ROOT / "configs/tiny_bert.py"

HEAVY = ("jax", "flax", "tensorflow", "torch", "pyarrow", "matplotlib")


@pytest.mark.parametrize(
    "code", ["import bert_jax", "from bert_jax.cli import main; main.main(['--help'])"]
)
def test_import_and_help_import_no_heavy_library(code: str) -> None:
    script = (
        f"import sys\ntry:\n    {code}\nexcept SystemExit: pass\n"
        f"print([name for name in {HEAVY} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stderr == "[]\n"


def test_the_version_is_unknown_where_nothing_is_installed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert bert_jax.__version__

    def version(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    assert bert_jax.__version__ == "unknown"


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_help_of_every_command_gives_an_example_and_a_sentence_per_flag(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "400")  # one line per flag
    assert not call(command, "--help")
    lines = [line.strip("│ ") for line in capsys.readouterr().out.splitlines()]
    assert any(line.startswith(f"Example: bert-jax {command} ") for line in lines)
    shown = " ".join(lines)
    for field in _flag_names(cli.COMMANDS[command]):
        help_text = re.search(rf"--{field}( \S+)? +([A-Z][^|]*?[.])( |$)", shown)
        assert help_text, f"--{field}"


def _flag_names(command: Any) -> list[str]:
    positional = {"text", "model", "input", "file", "folder", "target", "config", "run-dirs"}
    names = [n.replace("_", "-") for n in field_names(command)]
    return [n for n in names if n not in positional | {"run-dir", "step"}]


def test_plan_hides_accelerators_before_jax_is_imported() -> None:
    script = (
        "import sys, bert_jax.utils.platform as platform\n"
        "platform.without_tpu_env = lambda: sys.exit(9 if 'jax' in sys.modules else 0)\n"
        "from bert_jax.cli.main import main\n"
        f"main(['plan', {str(TINY)!r}, '--topology', 'v5e:2x2'])"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_plan_opens_no_accelerator_where_jax_was_imported_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "environ", dict(os.environ))
    before = jax.config.jax_platforms
    jax.config.update("jax_platforms", "tpu,cpu")
    try:
        platform.without_tpu_env()
        assert jax.config.jax_platforms == "cpu"
        assert os.environ["JAX_PLATFORMS"] == "cpu"
    finally:
        jax.config.update("jax_platforms", before)


@pytest.mark.parametrize("name", ["tiny_spanbert", "tiny_electra", "finetune"])
def test_every_config_field_has_a_sentence_as_help(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")  # one column
    path = ROOT / f"configs/{name}.py"
    assert not call("pretrain", path, "--help")
    lines = " ".join(line.strip("│ ") for line in capsys.readouterr().out.splitlines())
    entries = {entry.split()[0]: entry for entry in re.split(r" (?=--\w)", lines)}
    for field in config_fields(config.from_python_file(path)):
        flag = f"--{field.replace('_', '-')}"
        if f"{flag}," not in entries:  # a switch, whose help follows its second name
            assert re.search(r" [A-Z`].+[.)] +\(default: ", entries[flag]), flag


def test_help_of_a_config_lists_its_fields(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("pretrain", "plan"):
        assert not call(command, ROOT / "configs/tiny_electra.py", "--help")
        out = capsys.readouterr().out
        assert "--objective.generator-size FLOAT" in out
        assert "(default: 64)" in out


BAD_FLAGS = {
    ("fill", "run", "[MASK]", "--tpo", 3): "unknown flag --tpo: did you mean --top?",
    ("fil", "run", "[MASK]"): "unknown command 'fil': did you mean fill?",
    (): "no command is given: see bert-jax --help",
    ("fill", "run", "[MASK]", "more"): "unexpected argument 'more'",
    ("fill", "run", "[MASK]", "--top", "many"): "--top: invalid literal for int()",
    ("tokenizer", "--kind", "bpe", "--vocab-size", 9, "--out", "x"): "no TEXT is given",
    ("tokenizer", "x", "--kind", "bp"): "invalid choice 'bp' for argument '--kind'",
    ("tokenizer", "x", "--kind", "bpe", "--out", "x"): "--vocab-size is missing: expected a",
    ("tokenizer", "x", "--vocab-size", 9, "--out", "x"): "Missing from bert-jax tokenizer: --kind",
    ("prepare", "x", "--wokers", 2): "unknown flag --wokers: did you mean --workers?",
    ("pretrain", TINY, "--encoder.hiden-size", 3): "did you mean --encoder.hidden-size?",
    ("plan", TINY): "--topology is missing",
}


@pytest.mark.parametrize("args", BAD_FLAGS)
def test_a_wrong_flag_is_one_line_on_stderr_with_a_suggestion(
    args: tuple[object, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(*args) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("bert-jax: ")
    assert BAD_FLAGS[args] in line


def test_a_missing_file_without_a_path_is_a_defect_with_a_traceback(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What names no path is a defect, with its traceback."""

    def run(*_: object) -> int:
        raise FileNotFoundError("no such array")

    monkeypatch.setattr(cli.COMMANDS["fill"], "run", run)
    with pytest.raises(FileNotFoundError, match="no such array"):
        cli.main(["fill", "run", "[MASK]"])


def test_demo_checks_its_steps_before_it_writes_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call("demo", steps=0) == 2
    assert "--steps is 0: expected at least 1" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_reader_that_closes_the_output_ends_the_command_quietly(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As `bert-jax --help | head -1` does: no traceback, and the status of SIGPIPE."""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as output:
        monkeypatch.setattr(sys, "stdout", output)
        with pytest.raises(SystemExit) as ended:
            cli.main(["--help"])
    assert ended.value.code == 141
