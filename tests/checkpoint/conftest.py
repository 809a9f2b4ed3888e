"""Checkpoints of three steps, saved once."""

import shutil
from pathlib import Path

import pytest

from bert_jax.checkpoint.manager import Checkpoints
from tests.helpers.checkpoints import CONFIG, STATE


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "checkpoints"
    checkpoints = Checkpoints(folder)
    for step in (1, 2, 3):
        checkpoints.save(step, {"x": step * STATE["x"]}, CONFIG)
    checkpoints.close()
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "checkpoints"))
