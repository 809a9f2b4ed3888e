"""Commands take names on the Hub for models, record the commit, and push exports."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest

import bert_jax
from bert_jax import config
from bert_jax.config import Experiment, replace
from bert_jax.training import warm_start
from tests.helpers.cli_runner import call
from tests.helpers.fake_hub import TOKEN, Hub
from tests.helpers.hf_fixtures import write_hf_folder
from tests.helpers.paths import FIXTURES

NAME = "owner/letters"


@pytest.fixture
def commit(hub: Hub, tmp_path: Path) -> str:
    """A small BERT on the Hub; returns its commit."""
    return hub.add(NAME, write_hf_folder(tmp_path / "hf")).refs["main"]


def test_load_import_and_export_record_the_commit(
    commit: str, hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    loaded = bert_jax.load(NAME)
    assert (loaded.config.run.init, loaded.config.run.init_commit) == (NAME, commit)
    local = bert_jax.load(tmp_path / "hf")
    assert local.config.run.init is None
    np.testing.assert_array_equal(loaded.encode(["a b"]), local.encode(["a b"]))

    assert call("import", NAME, out=tmp_path / "ours") == 0
    run = config.read_config(tmp_path / "ours/config.json").run
    assert (run.init, run.init_commit) == (NAME, commit)
    assert call("export", tmp_path / "ours", format="hf", out=tmp_path / "out") == 0
    card = (tmp_path / "out/README.md").read_text()
    assert f"base_model: {NAME}\n" in card
    assert f"| initialized from | {NAME}, commit {commit} |" in card
    assert call("inspect", f"hf:{NAME}@main", json=True) == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out.splitlines()[-1])["parameters"]["total"] > 0
    assert "other readers take special tokens that are written in a text" in shown.err


def test_push_writes_one_commit_and_overwrites_only_with_force(
    commit: str,
    hub: Hub,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    push = dict(format="hf", push="owner/copy")
    assert call("export", NAME, **push) == 2
    assert (
        "owner/copy: the Hub answers 401 (Unauthorized): run `hf auth login`"
        in capsys.readouterr().err
    )
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert call("export", NAME, private=True, **push) == 0
    repo = hub.repos["models", "owner/copy"]
    assert f"pushed: {hub.url}/owner/copy/commit/{repo.refs['main']}" in capsys.readouterr().out
    assert repo.private
    assert len(repo.commits) == 2  # one of the new repository, one of the push
    assert b"base_model: owner/letters" in repo.commits[repo.refs["main"]]["README.md"]
    original = bert_jax.load(NAME).encode(["a b"])
    np.testing.assert_array_equal(bert_jax.load("owner/copy").encode(["a b"]), original)

    assert call("export", "nowhere", **push) == 2  # before the model is read
    assert (
        "owner/copy on the Hub has files of an export already (config.json, model.safetensors)"
    ) in capsys.readouterr().err
    del repo.commits[repo.refs["main"]]["config.json"]
    del repo.commits[repo.refs["main"]]["model.safetensors"]
    out = tmp_path / "left"
    assert call("export", NAME, out=out, **push) == 2
    message = "owner/copy on the Hub has 2 of these 4 files already"
    err = capsys.readouterr().err
    assert message in err
    assert f"remove {out} before you repeat the command" in err
    assert len(repo.commits) == 2
    newest = repo.commits[repo.refs["main"]]
    newest |= {"adapter_config.json": b"{}", "logo.png": b""}
    assert call("export", NAME, out=tmp_path / "kept", force=True, **push) == 0
    assert "owner/copy keeps adapter_config.json of earlier uploads" in capsys.readouterr().err
    assert (tmp_path / "kept/README.md").is_file()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (dict(format="hf"), "expected --out DIR"),
        (dict(format="orbax", push="a/b"), "--push uploads a Hugging Face folder"),
        (dict(format="hf", push="a/b/c"), "--push is 'a/b/c': expected OWNER/NAME"),
        (dict(format="hf", push="name"), "--push is 'name': expected OWNER/NAME"),
        (dict(format="hf", push="a/b--c"), "a/b--c is no name on the Hub: Cannot have -- or .."),
        (dict(format="hf", out="x", force=True), "expected --push OWNER/NAME"),
        (dict(format="hf", out=FIXTURES), "exists and is not empty"),
        (dict(format="onnx", out="x", int8="misspelled"), "misspelled cannot be read: "),
    ],
)
def test_flags_of_export_are_checked_before_the_model_is_read(
    flags: dict[str, object], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("export", "nowhere", **flags) == 2
    assert message in capsys.readouterr().err


def test_a_resumed_run_takes_the_commit_that_it_began_with(
    commit: str, hub: Hub, tmp_path: Path
) -> None:
    started = warm_start.pin_init(
        replace(Experiment(), run=dict(init=NAME, dir=str(tmp_path / "run")))
    )
    assert started.run.init_commit == commit
    (tmp_path / "run").mkdir()
    config.save_config(started, tmp_path / "run/config.json")
    repo = hub.repos["models", NAME]
    newer = repo.commit({"vocab.txt": b"[PAD]\n"})
    requests = len(hub.requests)
    resumed = warm_start.pin_init(replace(started, run=dict(init_commit=None)))
    assert resumed == started
    assert len(hub.requests) == requests
    assert warm_start.WarmStart(NAME, resumed).model.tokenizer.vocab_size == 37
    other = warm_start.pin_init(replace(started, run=dict(dir=str(tmp_path / "new"))))
    assert other.run.init_commit == newer


@pytest.mark.slow
def test_finetune_by_name_resumes_with_its_commit(
    commit: str, hub: Hub, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    task = tmp_path / "task"
    task.mkdir()
    rows = "".join(json.dumps({"text": t, "label": t}) + "\n" for t in "abab")
    for split in ("train", "dev"):
        (task / f"{split}.jsonl").write_text(rows)
    flags = {
        "init": NAME,
        "task": "classification",
        "data": task,
        "run.dir": tmp_path / "run",
        "data.batch-size": 4,
        "run.eval-every": 1,
    }
    caplog.set_level(logging.INFO, "bert_jax")
    assert call("finetune", "configs/finetune_bert.py", **flags, **{"run.steps": 1}) == 0
    assert f"commit {commit}" in caplog.text
    hub.repos["models", NAME].commit({"vocab.txt": b"[PAD]\n"})
    assert call("finetune", "configs/finetune_bert.py", **flags, **{"run.steps": 2}) == 0
    assert config.read_config(tmp_path / "run/config.json").run.init_commit == commit
