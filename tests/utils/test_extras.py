"""The extras of pyproject.toml, and what a wheel ships."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from bert_jax import config
from bert_jax.cli.configs import is_config, load_config_or_model
from bert_jax.utils import extras, shipped
from tests.helpers.paths import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_messages_name_the_requirements_of_pyproject() -> None:
    declared = {k: tuple(v) for k, v in PROJECT["optional-dependencies"].items()}
    assert {k: v for k, v in declared.items() if k not in ("test", "all")} == extras.EXTRAS
    message = str(extras.missing("gs://", "gcsfs", "gcs"))
    assert message.endswith("run pip install 'gcsfs>=2025.9' (the extra [gcs])")


def test_all_is_what_can_live_in_one_environment() -> None:
    (everything,) = PROJECT["optional-dependencies"]["all"]
    names = set(everything.removeprefix("bert-jax[").removesuffix("]").split(","))
    assert names == set(extras.EXTRAS) - {"cuda", "tpu", "plan-gpu", "beam"}


def test_a_shipped_config_is_named_without_a_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = ROOT / "configs/bert_base.py"
    assert config.from_python_file("bert_base") == config.from_python_file(path)
    assert is_config("bert_base")
    with pytest.raises(ValueError, match=r"configs/bert_base.py does not exist: give bert_base"):
        config.from_python_file("configs/bert_base.py")
    with pytest.raises(ValueError, match=r"bert_bse does not exist: did you mean bert_base\?"):
        config.from_python_file("bert_bse")
    (tmp_path / "bert_base").mkdir()  # a model's folder of that name
    assert not is_config("bert_base")


def test_a_wheel_has_the_files_in_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert shipped.shipped_file("data/sample.txt") == ROOT / "data/sample.txt"
    (tmp_path / "shipped/configs").mkdir(parents=True)
    (tmp_path / "shipped/configs/mine.py").touch()
    monkeypatch.setattr(shipped, "PACKAGE", tmp_path)
    assert list(shipped.shipped_configs()) == ["mine"]


def test_a_misspelled_config_is_told_from_a_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    with pytest.raises(ValueError, match=r"HF_HUB_OFFLINE.* or did you mean the config bert_base"):
        load_config_or_model("bert_bse", [], "inspect")
