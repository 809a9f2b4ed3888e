"""The command line in this process: output, files, and messages for wrong input."""

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

from bert_jax import config
from bert_jax.checkpoint import lock
from bert_jax.cli import main as cli
from bert_jax.cli.command import config_fields, field_names
from bert_jax.utils import platform
from tests.helpers.cli_runner import call
from tests.helpers.paths import ROOT, SAMPLE

TINY = ROOT / "configs/tiny_bert.py"


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
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
        "--duplicates",
        1,
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


def test_a_run_dir_holds_the_files_and_metrics_of_the_contract(workspace: Path) -> None:
    run = workspace / "run"
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


def test_fill_prints_a_line_per_mask(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert not call("fill", workspace / "run", "The [MASK] of the [MASK].", "--top", 3)
    out = capsys.readouterr().out.splitlines()
    assert [line[:7] for line in out] == ["mask 1:", "mask 2:"]
    assert all(len(line.split("  ")) == 3 for line in out)


def test_inspect_prints_parameter_counts_and_sharding(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not call("inspect", ROOT / "configs/bert_base.py", "--json")
    assert json.loads(capsys.readouterr().out)["parameters"]["total"] == 110_106_428
    assert not call("inspect", ROOT / "configs/bert_base.py", "--mesh.tensor", 16)
    assert "(-, fsdp, tensor)" in capsys.readouterr().out  # for devices that nobody has
    assert not call("inspect", workspace / "run")
    assert "embeddings/word" in capsys.readouterr().out


def test_report_writes_a_plot_and_a_self_contained_page(workspace: Path, tmp_path: Path) -> None:
    assert not call("report", workspace / "run", "--out", tmp_path / "report")
    assert (tmp_path / "report" / "curves.png").read_bytes().startswith(b"\x89PNG")
    page = (tmp_path / "report" / "report.html").read_text()
    assert 'src="data:image/png;base64,' in page
    assert "http" not in page


def test_profile_writes_a_trace_and_does_not_change_the_losses(
    workspace: Path, tmp_path: Path
) -> None:
    losses = []
    for name, more in (("plain", ()), ("traced", ("--profile", 2))):
        assert not pretrain(workspace, tmp_path / name, "--run.steps", 6, *more)
        lines = (tmp_path / name / "metrics.jsonl").read_text().splitlines()
        losses.append([json.loads(line)["loss"] for line in lines])
    assert losses[0] == losses[1]
    assert len(list(tmp_path.rglob("perfetto_trace.json.gz"))) == 1


def test_the_compilation_cache_is_filled_by_default(workspace: Path, tmp_path: Path) -> None:
    unset = ("JAX_COMPILATION_CACHE_DIR", "BERT_JAX_CACHE")
    env = {k: v for k, v in os.environ.items() if k not in unset}
    env |= {"XDG_CACHE_HOME": str(tmp_path), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    command = [sys.executable, "-m", "bert_jax", "fill", workspace / "run", "so [MASK] it"]
    subprocess.run(command, env=env, check=True, capture_output=True)
    assert list((tmp_path / "bert_jax" / "compiled").iterdir())


def test_embed_writes_features(workspace: Path, tmp_path: Path) -> None:
    import numpy as np

    (tmp_path / "texts").write_text("A short one.\nAnother text.\n")
    out = tmp_path / "features.npz"
    assert not call(
        "embed", workspace / "run", tmp_path / "texts", "--layers", "0,-1", "--out", out
    )
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
    ("tokenizer", "x", "--kind", "bpe"): "Missing from bert-jax tokenizer: --vocab-size",
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


def text(content: bytes) -> Callable[[Path, Path], list[object]]:
    """A call of `prepare` on a file with this content."""

    def arguments(workspace: Path, tmp: Path) -> list[object]:
        (tmp / "bad.txt").write_bytes(content)
        return [
            "prepare",
            tmp / "bad.txt",
            "--tokenizer",
            workspace / "tok",
            "--segments",
            "nsp",
            "--length",
            32,
            "--out",
            tmp / "out",
            "--strict",
        ]

    return arguments


BAD_INPUT: dict[str, tuple[Callable[[Path, Path], list[object]], str]] = {
    "an empty file": (text(b""), "bad.txt"),
    "bytes that are not UTF-8": (text(b"One.\n\nTw\xffo.\n"), "UTF-8"),
    "one document": (text(b"One sentence. And two.\n"), "document"),
    "a missing file": (
        lambda workspace, tmp: [
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
        lambda workspace, tmp: [
            "tokenizer",
            workspace / "text.txt",
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
        lambda workspace, tmp: [
            "prepare",
            workspace / "text.txt",
            "--tokenizer",
            workspace / "tok",
            "--segments",
            "nsp",
            "--length",
            32,
            "--out",
            workspace / "corpus",
        ],
        "not empty",
    ),
    "a path below a file": (
        lambda workspace, tmp: [
            "tokenizer",
            workspace / "text.txt",
            "--kind",
            "wordpiece",
            "--vocab-size",
            1500,
            "--out",
            workspace / "text.txt" / "tok",
        ],
        "text.txt",
    ),
    "rows of no tokens": (
        lambda workspace, tmp: [
            "prepare",
            workspace / "text.txt",
            "--tokenizer",
            workspace / "tok",
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
        lambda workspace, tmp: ["pretrain", tmp / "none.py", "--help"],
        "does not exist: expected a config file",
    ),
    "a text without a mask": (
        lambda workspace, tmp: ["fill", workspace / "run", "Hm."],
        "has no [MASK]",
    ),
    "a text beyond the model": (
        lambda workspace, tmp: ["fill", workspace / "run", "[MASK]" * 600],
        "the model takes 512",
    ),
    "a folder that is no model": (lambda workspace, tmp: ["fill", tmp, "[MASK]"], "config.json"),
    "a report on nothing": (
        lambda workspace, tmp: ["report", tmp, "--out", tmp / "out"],
        "metrics.jsonl",
    ),
}


@pytest.mark.parametrize("name", BAD_INPUT)
def test_bad_input_ends_with_status_2_and_one_line(
    name: str, workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments, expected = BAD_INPUT[name]
    assert call(*arguments(workspace, tmp_path)) == 2
    err = capsys.readouterr().err.strip().splitlines()
    assert expected in err[-1]
    assert "Traceback" not in " ".join(err)
    assert not (tmp_path / "out").exists()


def test_a_missing_file_without_a_path_is_a_defect_with_a_traceback(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What names no path is a defect, with its traceback."""

    def run(*_: object) -> int:
        raise FileNotFoundError("no such array")

    monkeypatch.setattr(cli.COMMANDS["fill"], "run", run)
    with pytest.raises(FileNotFoundError, match="no such array"):
        cli.main(["fill", "run", "[MASK]"])


BAD_CONFIGS: dict[str, tuple[tuple[object, ...], str]] = {
    "a length beyond the model": (("--data.length", 600), "encoder.max_length 512"),
    "rows longer than asked for": (("--data.length", 16), "rows of 32 tokens"),
    "a batch that does not divide": (("--data.batch-size", 6), "does not divide over 4 devices"),
    "a trace of less than no steps": (("--profile", -1), "--profile is -1: expected a number"),
    "a misspelt field": (("--encoder.hiden-size", 3), "hidden-size"),
    "a value of the wrong type": (("--run.steps", "many"), "many"),
    "heads that do not divide": (("--encoder.heads", 5), "encoder.heads 5"),
}


@pytest.mark.parametrize("name", BAD_CONFIGS)
def test_a_bad_config_is_rejected_before_the_run_dir_is_made(
    name: str, workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change, expected = BAD_CONFIGS[name]
    assert pretrain(workspace, tmp_path / "run", *change) == 2
    err = capsys.readouterr().err
    assert expected in err
    assert "Traceback" not in err
    assert not (tmp_path / "run").exists()


def test_a_folder_without_a_corpus_is_rejected(
    workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pretrain(workspace, tmp_path / "run", corpus="tok") == 2
    assert "is not a corpus" in capsys.readouterr().err


def test_resume_with_a_changed_config_is_rejected_and_names_the_field(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pretrain(workspace, workspace / "run", "--optim.peak-lr", 0.5) == 2
    assert "optim.peak_lr was 0.001, now 0.5" in capsys.readouterr().err


def test_resume_with_fewer_steps_than_done_is_rejected(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (workspace / "run" / "config.json").read_text()
    assert pretrain(workspace, workspace / "run", "--run.steps", 1) == 2
    assert "is at step 2, but run.steps is 1" in capsys.readouterr().err
    assert (workspace / "run" / "config.json").read_text() == before


def test_resume_with_another_tokenizer_is_rejected(
    workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(workspace / "run", tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "tokenizer")
    call(
        "tokenizer",
        workspace / "text.txt",
        "--kind",
        "wordpiece",
        "--vocab-size",
        1500,
        "--cased",
        "--out",
        tmp_path / "run" / "tokenizer",
    )
    assert pretrain(workspace, tmp_path / "run") == 2
    assert "is not that of the corpus" in capsys.readouterr().err


def test_a_run_killed_while_it_wrote_its_first_files_starts_again(
    workspace: Path, tmp_path: Path
) -> None:
    """After the config, in the middle of the tokenizer: nothing else is there yet."""
    run = tmp_path / "run"
    (run / ".tokenizer.half").mkdir(parents=True)
    (run / ".config.json.new").write_text("{")
    assert not pretrain(workspace, run)
    begun = tmp_path / "begun"
    begun.mkdir()
    shutil.copyfile(run / "config.json", begun / "config.json")
    (begun / "metrics.jsonl").write_text('{"step": 1, "loss": 1.0}\n{"step"')
    assert not pretrain(workspace, begun)
    assert (begun / "tokenizer").is_dir()


def test_a_run_that_lost_its_checkpoints_does_not_overwrite_its_metrics(
    workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Path(shutil.copytree(workspace / "run", tmp_path / "run"))
    shutil.rmtree(run / "checkpoints")
    assert pretrain(workspace, run) == 2
    assert "step 2 was saved" in capsys.readouterr().err
    metrics = (workspace / "run" / "metrics.jsonl").read_text()
    assert (run / "metrics.jsonl").read_text() == metrics


def test_a_second_run_in_a_locked_run_dir_is_rejected_but_reading_works(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with lock.run_lock(workspace / "run"):
        assert pretrain(workspace, workspace / "run", "--run.steps", 3) == 2
        assert "is in use by process" in capsys.readouterr().err
        assert not call("fill", workspace / "run", "The [MASK].")


def test_failing_saves_end_the_run_with_status_1_and_the_cause(
    workspace: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("bert_jax.checkpoint.manager._check_free_space", full)
    assert pretrain(workspace, tmp_path / "run", "--run.steps", 4, "--run.save-every", 1) == 1
    err = capsys.readouterr().err
    assert "checkpoint 1 was not saved: No space left on device" in err
    assert "the last 3 saves failed: No space left on device" in err.splitlines()[-1]
    assert "Traceback" not in err


def test_resume_with_a_rebuilt_corpus_is_rejected(
    workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(workspace / "corpus", tmp_path / "corpus")
    assert not pretrain(tmp_path, tmp_path / "run")
    shutil.rmtree(tmp_path / "corpus")
    call(
        "prepare",
        workspace / "text.txt",
        "--tokenizer",
        workspace / "tok",
        "--segments",
        "nsp",
        "--length",
        32,
        "--duplicates",
        1,
        "--seed",
        1,
        "--out",
        tmp_path / "corpus",
    )
    assert pretrain(tmp_path, tmp_path / "run") == 2
    assert "data.corpus was" in capsys.readouterr().err


def test_sigterm_saves_a_checkpoint_and_exits_with_143(workspace: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    command = [
        sys.executable,
        "-m",
        "bert_jax",
        "pretrain",
        ROOT / "configs/tiny_bert.py",
        "--data.path",
        workspace / "corpus",
        "--run.dir",
        run,
        "--run.steps",
        "100000",
        "--run.log-every",
        "1",
        # with the program of `workspace`, which is compiled already
        "--optim.decay-steps",
        "2",
        "--mesh.data",
        "1",
        "--mesh.fsdp",
        "4",
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
