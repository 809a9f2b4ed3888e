"""The commands, as a user types them: what they print, and what they say to bad input."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import pytest

from bert_jax.checkpoint import lock
from bert_jax.cli import main as cli
from bert_jax.cli.command import field_names
from bert_jax.utils import platform
from tests.helpers.cli_runner import call
from tests.helpers.paths import ROOT, SAMPLE

TINY = ROOT / "configs/tiny_bert.py"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a little text, a tokenizer, a corpus, and a run of two steps."""
    root = tmp_path_factory.mktemp("cli")
    (root / "text.txt").write_text(SAMPLE.read_text()[:300_000].rsplit("\n\n", 1)[0] + "\n")
    assert not call(
        "tokenizer",
        root / "text.txt",
        "--kind",
        "wordpiece",
        "--vocab-size",
        1500,
        "--out",
        root / "tok",
    )
    assert not call(
        "prepare",
        root / "text.txt",
        "--tokenizer",
        root / "tok",
        "--segments",
        "nsp",
        "--length",
        32,
        "--out",
        root / "corpus",
    )
    assert not pretrain(root, root / "run")
    return root


def pretrain(root: Path, run: Path, *more: object, corpus: str = "corpus") -> int:
    return call(
        "pretrain",
        ROOT / "configs/tiny_bert.py",
        "--data.path",
        root / corpus,
        "--run.dir",
        run,
        "--run.steps",
        2,
        "--mesh.data",
        1,
        "--mesh.fsdp",
        4,
        *more,
    )


def test_a_run_folder_holds_what_the_contract_says(made: Path) -> None:
    run = made / "run"
    names = {"config.json", "tokenizer", "checkpoints", "metrics.jsonl", "timing.jsonl"}
    names.add("tensorboard")
    assert {p.name for p in run.iterdir() if not p.name.startswith(".")} == names
    assert (run / "checkpoints" / "2").is_dir()
    line = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    assert {
        "step",
        "loss",
        "learning_rate",
        "tokens_per_second",
        "mlm_loss",
        "mlm_accuracy",
        "pair_loss",
        "pair_accuracy",
        "eval_loss",
        "eval_mlm_loss",
    } <= set(line)


def test_fill_prints_a_line_per_mask(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert not call("fill", made / "run", "The [MASK] of the [MASK].", "--top", 3)
    out = capsys.readouterr().out.splitlines()
    assert [line[:7] for line in out] == ["mask 1:", "mask 2:"]
    assert all(len(line.split("  ")) == 3 for line in out)


def test_inspect_counts(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert not call("inspect", ROOT / "configs/bert_base.py", "--json")
    assert json.loads(capsys.readouterr().out)["parameters"]["total"] == 110_106_428
    assert not call("inspect", ROOT / "configs/bert_base.py", "--mesh.tensor", 16)
    assert "(-, fsdp, tensor)" in capsys.readouterr().out  # for devices that nobody has
    assert not call("inspect", made / "run")
    assert "embeddings/word" in capsys.readouterr().out


def test_report_draws_and_writes_one_page(made: Path, tmp_path: Path) -> None:
    assert not call("report", made / "run", "--out", tmp_path / "report")
    assert (tmp_path / "report" / "curves.png").read_bytes().startswith(b"\x89PNG")
    page = (tmp_path / "report" / "report.html").read_text()
    assert 'src="data:image/png;base64,' in page
    assert "http" not in page


def test_a_profile_is_a_trace_of_some_steps_and_changes_nothing(made: Path, tmp_path: Path) -> None:
    losses = []
    for name, more in (("plain", ()), ("traced", ("--profile", 2))):
        assert not pretrain(made, tmp_path / name, "--run.steps", 6, *more)
        lines = (tmp_path / name / "metrics.jsonl").read_text().splitlines()
        losses.append([json.loads(line)["loss"] for line in lines])
    assert losses[0] == losses[1]
    assert len(list(tmp_path.rglob("perfetto_trace.json.gz"))) == 1


def test_compiled_programs_are_kept_for_the_next_start(made: Path, tmp_path: Path) -> None:
    env = {k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"}
    env |= {"XDG_CACHE_HOME": str(tmp_path), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    command = [sys.executable, "-m", "bert_jax", "fill", made / "run", "so [MASK] it"]
    subprocess.run(command, env=env, check=True, capture_output=True)
    assert list((tmp_path / "bert_jax" / "compiled").iterdir())


def test_embed_writes_features(made: Path, tmp_path: Path) -> None:
    import numpy as np

    (tmp_path / "texts").write_text("A short one.\nAnother text.\n")
    out = tmp_path / "features.npz"
    assert not call("embed", made / "run", tmp_path / "texts", "--layers", "0,-1", "--out", out)
    assert np.load(out)["features"].shape == (2, 2, 64)


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


def test_help_of_a_config_lists_its_fields(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("pretrain", "plan"):
        assert not call(command, ROOT / "configs/tiny_electra.py", "--help")
        out = capsys.readouterr().out
        assert "--objective.generator-size FLOAT" in out
        assert "(default: 64)" in out


FLAGS = {
    ("fill", "run", "[MASK]", "--tpo", 3): "unknown flag --tpo: did you mean --top?",
    ("fil", "run", "[MASK]"): "unknown command 'fil': did you mean fill?",
    (): "no command is given: see bert-jax --help",
    ("fill", "run", "[MASK]", "more"): "unexpected argument 'more'",
    ("fill", "run", "[MASK]", "--top", "many"): "--top: invalid literal for int()",
    ("tokenizer", "--kind", "bpe", "--vocab-size", 9, "--out", "x"): "no TEXT is given",
    ("tokenizer", "x", "--kind", "bp"): "invalid choice 'bp' for argument '--kind'",
    ("tokenizer", "x", "--kind", "bpe"): "Missing from bert-jax tokenizer: --vocab-size",
    ("prepare", "x", "--wokers", 2): "unknown flag --wokers: did you mean --workers?",
    ("pretrain", TINY, "--encoder.hiden-size", 3): "did you mean --encoder.hidden-size?",
    ("plan", TINY): "--topology is missing",
}


@pytest.mark.parametrize("args", FLAGS)
def test_a_wrong_flag_is_one_line_on_stderr_with_a_suggestion(
    args: tuple[object, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(*args) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("bert-jax: ")
    assert FLAGS[args] in line


def text(content: bytes) -> Callable[[Path, Path], list[object]]:
    """A call of `prepare` on a file with this content."""

    def arguments(made: Path, tmp: Path) -> list[object]:
        (tmp / "bad.txt").write_bytes(content)
        return [
            "prepare",
            tmp / "bad.txt",
            "--tokenizer",
            made / "tok",
            "--segments",
            "nsp",
            "--length",
            32,
            "--out",
            tmp / "out",
            "--strict",
        ]

    return arguments


BAD: dict[str, tuple[Callable[[Path, Path], list[object]], str]] = {
    "an empty file": (text(b""), "bad.txt"),
    "bytes that are not UTF-8": (text(b"One.\n\nTw\xffo.\n"), "UTF-8"),
    "one document": (text(b"One sentence. And two.\n"), "document"),
    "a missing file": (
        lambda made, tmp: [
            "tokenizer",
            tmp / "none.txt",
            "--kind",
            "bpe",
            "--vocab-size",
            500,
            "--out",
            tmp / "out",
        ],
        "none.txt",
    ),
    "a vocabulary larger than the text allows": (
        lambda made, tmp: [
            "tokenizer",
            made / "text.txt",
            "--kind",
            "wordpiece",
            "--vocab-size",
            900_000,
            "--out",
            tmp / "out",
        ],
        "900000",
    ),
    "an output folder that is not empty": (
        lambda made, tmp: [
            "prepare",
            made / "text.txt",
            "--tokenizer",
            made / "tok",
            "--segments",
            "nsp",
            "--length",
            32,
            "--out",
            made / "corpus",
        ],
        "not empty",
    ),
    "a path below a file": (
        lambda made, tmp: [
            "tokenizer",
            made / "text.txt",
            "--kind",
            "wordpiece",
            "--vocab-size",
            1500,
            "--out",
            made / "text.txt" / "tok",
        ],
        "text.txt",
    ),
    "rows of no tokens": (
        lambda made, tmp: [
            "prepare",
            made / "text.txt",
            "--tokenizer",
            made / "tok",
            "--segments",
            "nsp",
            "--length",
            0,
            "--pack",
            "--out",
            tmp / "out",
        ],
        "length is 0: expected 8 to",
    ),
    "help on a config that is not there": (
        lambda made, tmp: ["pretrain", tmp / "none.py", "--help"],
        "does not exist: expected a config file",
    ),
    "an unknown flag": (lambda made, tmp: ["fill", made / "run", "[MASK]", "--tpo", 3], "--tpo"),
    "a text without a mask": (lambda made, tmp: ["fill", made / "run", "Hm."], "has no [MASK]"),
    "a text beyond the model": (
        lambda made, tmp: ["fill", made / "run", "[MASK]" * 600],
        "the model takes 512",
    ),
    "a folder that is no model": (lambda made, tmp: ["fill", tmp, "[MASK]"], "config.json"),
    "a report on nothing": (
        lambda made, tmp: ["report", tmp, "--out", tmp / "out"],
        "metrics.jsonl",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_said_in_one_line(
    name: str, made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments, expected = BAD[name]
    assert call(*arguments(made, tmp_path)) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert expected in said[-1]
    assert "Traceback" not in " ".join(said)
    assert not (tmp_path / "out").exists()


def test_a_file_that_a_library_misses_is_no_path_of_the_users(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What names no path is a defect, with its traceback."""

    def run(*_: object) -> int:
        raise FileNotFoundError("no such array")

    monkeypatch.setattr(cli.COMMANDS["fill"], "run", run)
    with pytest.raises(FileNotFoundError, match="no such array"):
        cli.main(["fill", "run", "[MASK]"])


CHANGES: dict[str, tuple[tuple[object, ...], str]] = {
    "a length beyond the model": (("--data.length", 600), "encoder.max_length 512"),
    "rows longer than asked for": (("--data.length", 16), "rows of 32 tokens"),
    "a batch that does not divide": (("--data.batch-size", 6), "does not divide over 4 devices"),
    "a trace of less than no steps": (("--profile", -1), "--profile is -1: expected a number"),
    "a misspelt field": (("--encoder.hiden-size", 3), "hidden-size"),
    "a value of the wrong type": (("--run.steps", "many"), "many"),
    "heads that do not divide": (("--encoder.heads", 5), "encoder.heads 5"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_bad_config_is_refused_before_anything_is_written(
    name: str, made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change, expected = CHANGES[name]
    assert pretrain(made, tmp_path / "run", *change) == 2
    said = capsys.readouterr().err
    assert expected in said
    assert "Traceback" not in said
    assert not (tmp_path / "run").exists()


def test_a_folder_that_is_no_corpus_is_refused(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pretrain(made, tmp_path / "run", corpus="tok") == 2
    assert "is not a corpus" in capsys.readouterr().err


def test_a_run_of_another_config_is_refused_by_name(
    made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pretrain(made, made / "run", "--optim.peak-lr", 0.5) == 2
    assert "optim.peak_lr was 0.001, now 0.5" in capsys.readouterr().err


def test_fewer_steps_than_were_made_are_refused(
    made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (made / "run" / "config.json").read_text()
    assert pretrain(made, made / "run", "--run.steps", 1) == 2
    assert "is at step 2, run.steps is 1" in capsys.readouterr().err
    assert (made / "run" / "config.json").read_text() == before


def test_a_tokenizer_that_is_not_the_corpus_s_is_refused(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(made / "run", tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "tokenizer")
    call(
        "tokenizer",
        made / "text.txt",
        "--kind",
        "wordpiece",
        "--vocab-size",
        1500,
        "--cased",
        "--out",
        tmp_path / "run" / "tokenizer",
    )
    assert pretrain(made, tmp_path / "run") == 2
    assert "is not that of the corpus" in capsys.readouterr().err


def test_a_run_that_was_killed_as_it_began_begins_again(made: Path, tmp_path: Path) -> None:
    """After the config, in the middle of the tokenizer: nothing else is there yet."""
    run = tmp_path / "run"
    (run / ".tokenizer.half").mkdir(parents=True)
    (run / ".config.json.new").write_text("{")
    assert not pretrain(made, run)
    begun = tmp_path / "begun"
    begun.mkdir()
    shutil.copyfile(run / "config.json", begun / "config.json")
    (begun / "metrics.jsonl").write_text('{"step": 1, "loss": 1.0}\n{"step"')
    assert not pretrain(made, begun)
    assert (begun / "tokenizer").is_dir()


def test_a_run_that_lost_its_checkpoints_does_not_begin_again(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Path(shutil.copytree(made / "run", tmp_path / "run"))
    shutil.rmtree(run / "checkpoints")
    assert pretrain(made, run) == 2
    assert "step 2 was saved" in capsys.readouterr().err
    metrics = (made / "run" / "metrics.jsonl").read_text()
    assert (run / "metrics.jsonl").read_text() == metrics


def test_a_second_run_in_a_folder_is_refused_and_readers_are_not(
    made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with lock.run_lock(made / "run"):
        assert pretrain(made, made / "run", "--run.steps", 3) == 2
        assert "is in use by process" in capsys.readouterr().err
        assert not call("fill", made / "run", "The [MASK].")


def test_a_run_whose_saves_fail_ends_with_status_1_and_says_why(
    made: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("bert_jax.checkpoint.manager._check_free_space", full)
    assert pretrain(made, tmp_path / "run", "--run.steps", 4, "--run.save-every", 1) == 1
    said = capsys.readouterr().err
    assert "checkpoint 1 was not saved: No space left on device" in said
    assert "the last 3 saves failed: No space left on device" in said.splitlines()[-1]
    assert "Traceback" not in said


def test_a_corpus_that_was_made_anew_is_refused(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(made / "corpus", tmp_path / "corpus")
    assert not pretrain(tmp_path, tmp_path / "run")
    shutil.rmtree(tmp_path / "corpus")
    call(
        "prepare",
        made / "text.txt",
        "--tokenizer",
        made / "tok",
        "--segments",
        "nsp",
        "--length",
        32,
        "--seed",
        1,
        "--out",
        tmp_path / "corpus",
    )
    assert pretrain(tmp_path, tmp_path / "run") == 2
    assert "data.corpus was" in capsys.readouterr().err


def test_sigterm_saves_and_says_so(made: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    command = [
        sys.executable,
        "-m",
        "bert_jax",
        "pretrain",
        ROOT / "configs/tiny_bert.py",
        "--data.path",
        made / "corpus",
        "--run.dir",
        run,
        "--run.steps",
        "100000",
        "--run.log-every",
        "1",
    ]
    process = subprocess.Popen([str(c) for c in command], stderr=subprocess.DEVNULL)
    while not (run / "metrics.jsonl").exists() or not (run / "metrics.jsonl").read_text():
        assert process.poll() is None
        time.sleep(0.1)
    process.terminate()
    assert process.wait(60) == 143
    (saved,) = (run / "checkpoints").iterdir()
    last = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["step"] == int(saved.name)
