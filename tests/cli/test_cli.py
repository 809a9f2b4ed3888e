"""The command line in this process: output, files, and messages for wrong input."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bert_jax.checkpoint import lock
from bert_jax.cli.configs import load_config
from bert_jax.data.tokenization.tokenizer import load_tokenizer
from tests.helpers.cli_runner import call
from tests.helpers.paths import ROOT, SAMPLE

TINY = ROOT / "configs/tiny_bert.py"


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a little text, a tokenizer, a corpus, and a run of two steps."""
    root = tmp_path_factory.mktemp("cli")
    (root / "text.txt").write_text(SAMPLE.read_text()[:300_000].rsplit("\n\n", 1)[0] + "\n")
    assert not train_tokenizer(root / "text.txt", root / "tok")
    assert not prepare(root, root / "corpus")
    assert not pretrain(root, root / "run")
    return root


def train_tokenizer(text: Path, out: Path, **flags: object) -> int:
    flags = {"kind": "wordpiece", "vocab_size": 1500} | flags
    return call("tokenizer", text, **flags, out=out)


def prepare(root: Path, out: Path, text: Path | None = None, **flags: object) -> int:
    flags = {"segments": "nsp", "length": 32, "duplicates": 1} | flags
    return call("prepare", text or root / "text.txt", tokenizer=root / "tok", **flags, out=out)


def pretrain(root: Path, run: Path, *more: object, corpus: str = "corpus") -> int:
    mesh = ["--mesh.data", 1, "--mesh.fsdp", 4]
    paths = ["--data.path", root / corpus, "--run.dir", run]
    return call("pretrain", TINY, *paths, "--run.steps", 2, *mesh, *more)


def test_a_run_dir_holds_the_files_and_metrics_of_the_contract(workspace: Path) -> None:
    run = workspace / "run"
    names = {"config.json", "tokenizer", "checkpoints", "metrics.jsonl", "timing.jsonl"}
    names |= {"tensorboard"}
    assert {p.name for p in run.iterdir() if not p.name.startswith(".")} == names
    assert (run / "checkpoints" / "2").is_dir()
    line = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    training = {"step", "loss", "learning_rate", "tokens_per_second", "mlm_loss", "mlm_accuracy"}
    assert training | {"pair_loss", "pair_accuracy", "eval_loss", "eval_mlm_loss"} <= set(line)


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


def test_inspect_takes_the_vocabulary_from_the_corpus(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not call("inspect", TINY, "--data.path", workspace / "corpus", "--json")
    leaves = json.loads(capsys.readouterr().out)["parameters"]["leaves"]
    (rows,) = (leaf["shape"][0] for leaf in leaves if leaf["name"] == "embeddings/word")
    assert rows == load_tokenizer(workspace / "tok").vocab_size != 30522


def test_report_writes_a_plot_and_a_self_contained_page(workspace: Path, tmp_path: Path) -> None:
    assert not call("report", workspace / "run", "--out", tmp_path / "report")
    assert (tmp_path / "report" / "curves.png").read_bytes().startswith(b"\x89PNG")
    page = (tmp_path / "report" / "report.html").read_text()
    assert 'src="data:image/png;base64,' in page
    assert "http" not in page


@pytest.mark.slow
def test_profile_writes_a_trace_and_does_not_change_the_losses(
    workspace: Path, tmp_path: Path
) -> None:
    losses = []
    for name, more in (("plain", ()), ("traced", ("--profile", 2))):
        one_schedule = ("--run.steps", 6, "--optim.decay-steps", 2)  # whose steps are compiled
        assert not pretrain(workspace, tmp_path / name, *one_schedule, *more)
        lines = (tmp_path / name / "metrics.jsonl").read_text().splitlines()
        losses.append([json.loads(line)["loss"] for line in lines])
    assert losses[0] == losses[1]
    assert len(list(tmp_path.rglob("perfetto_trace.json.gz"))) == 1


@pytest.mark.slow
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


def prepare_text(content: bytes) -> Callable[[Path, Path], int]:
    """`prepare` on a file with this content."""

    def run(workspace: Path, tmp: Path) -> int:
        (tmp / "bad.txt").write_bytes(content)
        return prepare(workspace, tmp / "out", tmp / "bad.txt", strict=True)

    return run


BAD_INPUT: dict[str, tuple[Callable[[Path, Path], int], str]] = {
    "an empty file": (prepare_text(b""), "bad.txt"),
    "bytes that are not UTF-8": (prepare_text(b"One.\n\nTw\xffo.\n"), "UTF-8"),
    "one document": (prepare_text(b"One sentence. And two.\n"), "document"),
    "a missing file": (
        lambda workspace, tmp: train_tokenizer(tmp / "none.txt", tmp / "out"),
        "none.txt",
    ),
    "a vocabulary larger than the text allows": (
        lambda workspace, tmp: train_tokenizer(
            workspace / "text.txt", tmp / "out", vocab_size=900_000
        ),
        "900000",
    ),
    "an output folder that is not empty": (
        lambda workspace, tmp: prepare(workspace, workspace / "corpus"),
        "not empty",
    ),
    "a path below a file": (
        lambda workspace, tmp: train_tokenizer(
            workspace / "text.txt", workspace / "text.txt" / "tok"
        ),
        "text.txt",
    ),
    "rows of no tokens": (
        lambda workspace, tmp: prepare(workspace, tmp / "out", length=0, pack=True),
        "length is 0: expected 8 to",
    ),
    "help on a config that is not there": (
        lambda workspace, tmp: call("pretrain", tmp / "none.py", "--help"),
        "does not exist: expected a file, or a name such as bert_base",
    ),
    "a text without a mask": (
        lambda workspace, tmp: call("fill", workspace / "run", "Hm."),
        "has no [MASK]",
    ),
    "a text beyond the model": (
        lambda workspace, tmp: call("fill", workspace / "run", "[MASK]" * 600),
        "the model takes 512",
    ),
    "a folder that is no model": (lambda _, tmp: call("fill", tmp, "[MASK]"), "config.json"),
    "a report on nothing": (lambda _, tmp: call("report", tmp, out=tmp / "out"), "metrics.jsonl"),
}


@pytest.mark.parametrize("name", BAD_INPUT)
def test_bad_input_ends_with_status_2_and_one_line(
    name: str, workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, expected = BAD_INPUT[name]
    assert run(workspace, tmp_path) == 2
    err = capsys.readouterr().err.strip().splitlines()
    assert expected in err[-1]
    assert "Traceback" not in " ".join(err)
    assert not (tmp_path / "out").exists()


BAD_CONFIGS: dict[str, tuple[tuple[object, ...], str]] = {
    "a length beyond the model": (("--data.length", 600), "encoder.max_length 512"),
    "rows longer than asked for": (("--data.length", 16), "rows of 32 tokens"),
    "a batch that does not divide": (("--data.batch-size", 6), "is not divisible by 4 devices"),
    "a trace of less than no steps": (("--profile", -1), "--profile is -1: expected a number"),
    "a misspelt field": (("--encoder.hiden-size", 3), "hidden-size"),
    "a value of the wrong type": (("--run.steps", "many"), "many"),
    "heads that do not divide": (("--encoder.heads", 5), "encoder.heads 5"),
    "attention for another device": (("--run.attention", "cudnn"), "needs an NVIDIA GPU"),
    "passes over the rows": (("--run.epochs", 3), "run.epochs is 3.0, and the run is pre-training"),
    "warmup as steps and as a share": (
        ("--optim.warmup-steps", 5, "--optim.warmup-ratio", 0.1),
        "optim.warmup_steps and optim.warmup_ratio are both given",
    ),
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


def test_a_config_for_fine_tuning_is_rejected(
    workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = ("--data.path", workspace / "corpus", "--run.dir", tmp_path / "run")
    assert call("pretrain", "finetune", *paths, "--run.epochs", 1) == 2
    assert "objective is Supervised, which is not trained on a corpus" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("steps", [500, 10_000])
def test_warmup_steps_count_and_not_the_ratio_of_the_config(steps: int) -> None:
    """Also where they are the default of the field."""
    optim = load_config("simcse", ["--optim.warmup_steps", str(steps)], "pretrain").optim
    assert (optim.warmup_steps, optim.warmup_ratio) == (steps, None)
    assert load_config("simcse", ["--optim.peak_lr", "1"], "pretrain").optim.warmup_ratio == 0.1


def test_a_batch_size_that_no_stage_uses_is_rejected() -> None:
    """modern_base has stages with growing batches."""
    stages = ["--data.stages", "128x64=.9,512=.1"]
    assert load_config("modern_base", [*stages, "--data.batch-size", "8"], "pretrain")
    for flag in (["--data.batch-size", "8"], ["--data.batch_size=8"]):
        with pytest.raises(ValueError, match="batch-size is not used: every stage"):
            load_config("modern_base", flag, "pretrain")


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
    train_tokenizer(workspace / "text.txt", tmp_path / "run" / "tokenizer", cased=True)
    assert pretrain(workspace, tmp_path / "run") == 2
    assert "is not that of the corpus" in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_killed_while_it_wrote_its_first_files_starts_again(
    workspace: Path, tmp_path: Path
) -> None:
    """After the config, in the middle of the tokenizer: nothing else is there yet."""
    run = tmp_path / "run"
    (run / ".tokenizer.half").mkdir(parents=True)
    (run / ".config.json.new").write_text("{")
    assert not pretrain(workspace, run)
    without_tokenizer = tmp_path / "begun"
    without_tokenizer.mkdir()
    shutil.copyfile(run / "config.json", without_tokenizer / "config.json")
    (without_tokenizer / "metrics.jsonl").write_text('{"step": 1, "loss": 1.0}\n{"step"')
    assert not pretrain(workspace, without_tokenizer)
    assert (without_tokenizer / "tokenizer").is_dir()


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


@pytest.mark.slow
def test_failing_saves_end_the_run_with_status_1_and_the_cause(
    workspace: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("bert_jax.checkpoint.manager._check_free_space", full)
    options = ("--run.steps", 4, "--run.save-every", 1)
    one_schedule = ("--optim.decay-steps", 2)  # whose steps are compiled
    assert pretrain(workspace, tmp_path / "run", *options, *one_schedule) == 1
    err = capsys.readouterr().err
    assert "checkpoint 1 was not saved: No space left on device" in err
    assert "the last 3 saves failed: No space left on device" in err.splitlines()[-1]
    assert "Traceback" not in err


def test_a_full_device_ends_with_status_1_and_advice(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.\nA long list")

    monkeypatch.setattr("bert_jax.cli.model_commands.Inspect.run", full)
    assert call("inspect", "bert_base") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "the device has too little memory: RESOURCE_EXHAUSTED: Out of memory" in line
    assert "--optim.accumulate N" in line


def test_resume_with_a_rebuilt_corpus_is_rejected(
    workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(workspace / "corpus", tmp_path / "corpus")
    assert not pretrain(tmp_path, tmp_path / "run")
    shutil.rmtree(tmp_path / "corpus")
    prepare(workspace, tmp_path / "corpus", seed=1)
    assert pretrain(tmp_path, tmp_path / "run") == 2
    assert "data.corpus was" in capsys.readouterr().err


@pytest.mark.slow
def test_sigterm_saves_a_checkpoint_and_exits_with_143(workspace: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    command = [sys.executable, "-m", "bert_jax", "pretrain", TINY, "--run.dir", run]
    command += [
        "--data.path",
        workspace / "corpus",
        "--run.steps",
        "100000",
        "--run.log-every",
        "1",
    ]
    # With the program of `workspace`, which is compiled already.
    command += ["--optim.decay-steps", "2", "--mesh.data", "1", "--mesh.fsdp", "4"]
    process = subprocess.Popen([str(c) for c in command], stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 300
        while not (run / "metrics.jsonl").exists() or not (run / "metrics.jsonl").read_text():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
        process.terminate()
        assert process.wait(60) == 143
    finally:
        process.kill()
    (saved,) = (run / "checkpoints").iterdir()
    last = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["step"] == int(saved.name)
