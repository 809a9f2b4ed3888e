"""Nothing but a name on the Hub opens a connection."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest

import bert_jax
from bert_jax.utils import hub
from tests.helpers.cli_runner import call
from tests.helpers.hf_fixtures import write_hf_folder


@pytest.fixture(autouse=True)
def attempts(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Closes all sockets of this process; returns the addresses that something tried."""
    tried: list[Any] = []

    def refuse(*args: Any, **kwargs: Any) -> Any:
        tried.append(args)
        raise OSError(f"a test without network tried {args}")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    for name in ("getaddrinfo", "gethostbyname", "create_connection"):
        monkeypatch.setattr(socket, name, refuse)
    return tried


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_hf_folder(tmp_path / "hf")


def test_load_fill_and_encode_open_no_connection(model: Path, attempts: list[Any]) -> None:
    loaded = bert_jax.load(str(model))
    assert len(loaded.fill("a [MASK]", top=2)[0]) == 2
    assert loaded.encode(["a b"]).shape[1] == 1
    with pytest.raises(ValueError, match="does not exist"):
        bert_jax.load(str(model.parent / "missing"))
    assert attempts == []


def test_a_name_does(attempts: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    with pytest.raises(ValueError, match=r"owner/name is no folder here, and the Hub .* reached"):
        hub.model_folder("owner/name")
    assert attempts


@pytest.mark.slow
def test_finetune_and_predict_open_no_connection(
    model: Path, attempts: list[Any], tmp_path: Path
) -> None:
    task = tmp_path / "task"
    task.mkdir()
    rows = "".join(json.dumps({"text": t, "label": t}) + "\n" for t in "abab")
    for split in ("train", "dev"):
        (task / f"{split}.jsonl").write_text(rows)
    flags = {"run.dir": tmp_path / "run", "data.batch-size": 4, "run.steps": 1}
    assert call("finetune", "finetune", init=model, task="classification", data=task, **flags) == 0
    out = tmp_path / "out.jsonl"
    assert call("predict", tmp_path / "run", task / "dev.jsonl", out=out) == 0
    assert len(out.read_text().splitlines()) == 4
    assert attempts == []
