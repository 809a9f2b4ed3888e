"""Imports, help, and messages for wrong flags: nothing here trains or reads a model."""

import importlib.metadata
import os
import re
import subprocess
import sys
import typing
from pathlib import Path
from typing import Any

import jax
import pytest
from tyro.conf import Positional

import bert_jax
from bert_jax import config
from bert_jax.cli import main as cli
from bert_jax.cli.command import config_fields, field_names, parse
from bert_jax.utils import platform
from tests.helpers.cli_runner import call
from tests.helpers.paths import ROOT

TINY = ROOT / "configs/tiny_bert.py"

POSITIONAL = typing.get_args(Positional[int])[1]

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
    """Of its arguments those that are not annotated as positional."""
    hints = typing.get_type_hints(command, include_extras=True)
    flags = (n for n in field_names(command) if POSITIONAL not in typing.get_args(hints.get(n)))
    return [name.replace("_", "-") for name in flags]


def test_plan_hides_accelerators_before_jax_is_imported() -> None:
    script = (
        "import sys, bert_jax.utils.platform as platform\n"
        "platform.without_tpu_env = lambda: sys.exit(9 if 'jax' in sys.modules else 7)\n"
        "from bert_jax.cli.main import main\n"
        f"main(['plan', {str(TINY)!r}, '--topology', 'v5e:2x2'])"
    )
    assert subprocess.run([sys.executable, "-c", script]).returncode == 7


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


WORDPIECE = ("tokenizer", "x", "--kind", "wordpiece", "--vocab-size", 9, "--out", "x")
FULL = ("prepare", "x", "--tokenizer", "t", "--segments", "full", "--length", 64, "--out", "o")
FINETUNE = ("finetune", "finetune", "--init", "m", "--task", "cola", "--data", "d")
BAD_FLAGS = {
    ("fill", "run", "[MASK]", "--tpo", 3): "unknown flag --tpo: did you mean --top?",
    ("fil", "run", "[MASK]"): "unknown command 'fil': did you mean fill?",
    (): "no command is given: see bert-jax --help",
    ("fill", "run", "[MASK]", "more"): "unexpected argument 'more'",
    ("mine", "m", "d", "--out", "o", "--rerank", "--margin", 0.1): "--margin is 0.1, but --rerank",
    ("mine", "m", "d", "--out", "o", "--rerank", "--negatives", 4): "--negatives is 4, but --rer",
    (*FULL, "--language", "de"): "--language is de, but --segments full does not split lines",
    ("pretrain", TINY, "--init", "a", "--run.init=b"): "--init is a and --run.init b: give one",
    ("pretrain", TINY, "--teacher", "a", "--distill.teacher", "b"): "--teacher is a and --distill",
    (*FINETUNE, "--data.path", "e"): "--data is d and --data.path e: give one of the two",
    (*FINETUNE, "--run.init", "b"): "--init is m and --run.init b: give one of the two",
    (*FINETUNE, "--objective.task", "rte"): "--task is cola and --objective.task rte: give one",
    (*FINETUNE, "--select", "last", "--run.select=best"): "--select is last and --run.select best",
    (
        "tokenize",
        "run",
        "-x y",
    ): "unexpected argument '-x y' (give a text that begins with a hyphen",
    ("fill", "run", "[MASK]", "--top", "many"): "--top: invalid literal for int()",
    ("tokenizer", "--kind", "bpe", "--vocab-size", 999, "--out", "x"): "no TEXT is given",
    ("tokenizer", "x", "--kind", "bp"): "invalid choice 'bp' for argument '--kind'",
    ("tokenizer", "x", "--kind", "bpe", "--out", "x"): "--vocab-size is missing: expected a",
    (  # said before the text is read, which is missing
        *("tokenizer", "x", "--kind", "bpe", "--vocab-size", 9, "--alphabet", 3, "--out", "x"),
    ): "alphabet is 3, but bpe has no such option",
    ("tokenizer", "x", "--vocab-size", 9, "--out", "x"): "Missing from bert-jax tokenizer: --kind",
    ("prepare", "x", "--wokers", 2): "unknown flag --wokers: did you mean --workers?",
    ("pretrain", TINY, "--encoder.hiden-size", 3): "did you mean --encoder.hidden-size?",
    ("plan", TINY): "--topology is missing",
    ("plan", TINY, "--topology", "v5e:2x2", "--distill.teacher", "x"): "distill.teacher is x, but",
    ("bench", TINY, "--distill.teacher", "x"): "takes steps without a teacher: leave it out",
    (*WORDPIECE, "--cased", "--uncased"): "--uncased cannot be combined with --cased: leave one",
    ("embed", "run", "x", "--out", "x.npz", "--graph"): "--graph is for --index: expected both, or",
}


@pytest.mark.parametrize("args", BAD_FLAGS)
def test_a_wrong_flag_is_one_line_on_stderr_with_a_suggestion(
    args: tuple[object, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(*args) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("bert-jax: ")
    assert BAD_FLAGS[args] in line


@pytest.mark.parametrize("text", ["-x y", "--json", "--", "- item"])
def test_after_two_hyphens_a_text_may_begin_with_one(text: str) -> None:
    parsed, extra = parse(cli.COMMANDS["tokenize"], "tokenize", ["run", "--json", "--", text])
    assert (vars(parsed)["text"], vars(parsed)["json"], extra) == (text, True, [])


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("fill", "no/model", "gs://b is a [MASK]"), "no/model "),
        (("tokenize", "no/model", "gs://b"), "no/model "),
        (("search", "no/index", "gs://b what is it", "--prompt", "s3://b"), "no/index is not"),
        (("embed", "no/model", "x", "--out", "x.npz", "--prompt", "gs://b"), "no/model "),
        (("fill", "gs://b/model", "a [MASK]"), "model is gs://b/model: only --run.dir"),
        (("prepare", "gs://b/text", *FULL[2:]), "text is gs://b/text: only --run.dir"),
    ],
)
def test_a_text_may_look_like_the_path_of_a_bucket(
    args: tuple[object, ...],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "no").mkdir()  # so that no name on the Hub is looked up
    monkeypatch.chdir(tmp_path)
    assert call(*args) == 2
    assert capsys.readouterr().err.startswith(f"bert-jax: {message}")


def test_a_config_file_may_have_no_suffix_and_another_one_is_not_executed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "conf").write_text(TINY.read_text())
    assert not call("pretrain", tmp_path / "conf", "--help")
    assert not call("inspect", tmp_path / "conf", "--help")
    assert "--run.steps" in capsys.readouterr().out
    (tmp_path / "weights.bin").write_text("raise SystemExit(0)")
    assert call("inspect", tmp_path / "weights.bin") == 2
    assert "a config file is called .py, or has no suffix" in capsys.readouterr().err


def test_a_path_in_the_user_s_folder_may_follow_an_equals_sign(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A shell replaces `~` in `--out ~/x`, and not in `--out=~/x`. Texts stay as they are."""
    seen = []
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(cli.COMMANDS["search"], "run", lambda self, _: seen.append(self) or 0)
    assert call("search", "--file=~/x", "--prompt=a ~/b", "i", "--", "--c=~/d") == 0
    (search,) = seen
    assert (search.file, search.prompt, search.text) == (f"{tmp_path}/x", "a ~/b", "--c=~/d")


def test_a_missing_file_without_a_path_is_a_defect_with_a_traceback(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What names no path is a defect, with its traceback."""

    def run(*_: object) -> int:
        raise FileNotFoundError("no such array")

    monkeypatch.setattr(cli.COMMANDS["fill"], "run", run)
    with pytest.raises(FileNotFoundError, match="no such array"):
        cli.main(["fill", "run", "[MASK]"])


def test_an_interrupt_has_its_status_and_no_message(monkeypatch: Any, capsys: Any) -> None:
    def run(*_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli.COMMANDS["fill"], "run", run)
    assert call("fill", "run", "[MASK]") == 130
    assert capsys.readouterr().err == ""


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
