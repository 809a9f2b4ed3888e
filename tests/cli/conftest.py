"""Fixtures of the tests of launchers."""

import os
import shutil
from pathlib import Path

import pytest

from tests.helpers.fake_programs import LAUNCH, LAUNCHERS


@pytest.fixture
def repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with the launchers alone, and an empty folder of fake programs on PATH."""
    for name in ("launch", "bert_jax", "configs", "fake/bin"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("pyproject.toml", "requirements.txt", "README.md", "LICENSE"):
        (tmp_path / name).touch()
    for name in LAUNCHERS:
        shutil.copy(LAUNCH / name, tmp_path / "launch")
    monkeypatch.setenv("FAKE", str(tmp_path / "fake"))
    monkeypatch.setenv("PATH", f"{tmp_path / 'fake' / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("PAUSE", "0")
    return tmp_path
