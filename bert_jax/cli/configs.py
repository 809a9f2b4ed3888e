"""The experiment that a command line describes: a config, and the fields that it changes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from bert_jax import config
from bert_jax.cli.command import change_config
from bert_jax.config import Experiment
from bert_jax.config.stages import parse_stages
from bert_jax.config.step_counts import (
    given_step_counts,
    mark_step_counts,
    override_step_counts,
)
from bert_jax.utils.errors import did_you_mean
from bert_jax.utils.shipped import shipped_configs


def load_config(target: str, overrides: Sequence[str], name: str) -> Experiment:
    """The config of a Python file, changed by `overrides`; `name` is that of the command. A number
    of warmup steps counts, and not the file's ratio.

    ValueError: a field that does not exist or has a wrong value, warmup steps with their ratio.
    """
    recipe = config.from_python_file(target)
    experiment = _load_config(recipe, overrides, name)
    _refuse_unused_batch_size(experiment, overrides)
    return experiment


def _load_config(recipe: Experiment, overrides: Sequence[str], name: str) -> Experiment:
    if not any(o.startswith("--optim.warmup") for o in overrides):
        return change_config(recipe, overrides, name)

    def override(experiment: Experiment) -> Experiment:
        return change_config(experiment, overrides, name)

    given = given_step_counts(override(mark_step_counts(recipe)))
    return override_step_counts(recipe, given, override)


def _refuse_unused_batch_size(experiment: Experiment, overrides: Sequence[str]) -> None:
    """ValueError: the number of rows is given, and every stage has its own."""
    text = experiment.data.stages
    given = any(o.partition("=")[0].replace("_", "-") == "--data.batch-size" for o in overrides)
    if given and text is not None and all(stage.rows for stage in parse_stages(text)):
        raise ValueError(
            f"--data.batch-size is not used: every stage of data.stages, {text}, has its number of "
            "rows: give --data.stages LENGTHxROWS=SHARE,... instead"
        )


def is_config(target: str) -> bool:
    """Whether a CONFIG|MODEL is a config: a Python file, which may have no suffix, or the name of a
    shipped one. A folder of that name is a model. A config is executed, and a file with another
    suffix may be a model's, so it is no config."""
    if Path(target).is_dir():
        return False
    is_file = not Path(target).suffix and os.path.isfile(target)
    return target.endswith(".py") or is_file or target in shipped_configs()


def load_config_or_model(target: str, overrides: Sequence[str], name: str) -> Experiment:
    """The same; `target` may also be a model: a folder, or a name on the Hugging Face Hub."""
    if is_config(target):
        return load_config(target, overrides, name)
    from bert_jax import convert
    from bert_jax.utils import hub

    try:
        folder = convert.encoder_folder(hub.model_folder(target).path)
    except ValueError as e:
        if os.path.isfile(target):
            raise ValueError(f"{e}; a config file is called .py, or has no suffix") from None
        if similar := did_you_mean(target, shipped_configs(), "", "the config "):
            raise ValueError(f"{e}; or {similar}") from None
        raise
    if not convert.is_model_folder(folder):
        raise ValueError(f"{target} is neither a config file (*.py) nor a model's folder")
    if convert.is_hf_folder(folder):
        return change_config(convert.read_hf_experiment(folder), overrides, name)
    return change_config(config.read_config(folder / "config.json"), overrides, name)
