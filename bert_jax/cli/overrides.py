"""The experiment that a command line asks for."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def from_config(path: str, overrides: list[str], command: str = "pretrain") -> Any:
    """A config file with `--section.field value` laid over it."""
    from bert_jax import config

    return override(config.from_python_file(path), overrides, command)


def from_folder(folder: str, overrides: list[str]) -> Any:
    from bert_jax import config, convert

    if not (Path(folder) / "config.json").is_file():
        raise ValueError(f"{folder} is neither a config file (*.py) nor a model's folder")
    if convert.is_hf_folder(Path(folder)):
        return override(convert.read_hf_experiment(folder), overrides)
    return override(config.read_config(Path(folder) / "config.json"), overrides)


def override(experiment: Any, overrides: list[str], command: str = "pretrain") -> Any:
    import tyro

    from bert_jax.config import Experiment

    return tyro.cli(
        tyro.conf.AvoidSubcommands[Experiment],  # type: ignore[type-var]
        default=experiment,
        args=overrides,
        prog=f"bert-jax {command} CONFIG",
    )
