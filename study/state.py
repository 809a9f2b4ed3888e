"""The folder that a study keeps: whose it is, and what is deleted from it."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

from bert_jax.data.text_sources import expand_texts
from bert_jax.utils import io
from study.datasets import Datasets
from study.presets import Preset


def check_config(folder: Path, preset: Preset, datasets: Datasets) -> None:
    """Write the study's config, or compare it with the one in the folder. Files may have other
    paths than on the machine where the study began, but not another content.

    ValueError: the folder holds another study.
    """
    digest = hashlib.sha256()
    for name in expand_texts(datasets.text).sources:
        digest.update(Path(name).read_bytes() if Path(name).is_file() else name.encode())
    tasks = datasets.user_tasks
    files = [] if tasks is None else sorted(tasks.glob("*/*.json*"))
    config = {
        "scale": preset.name,
        "text": list(datasets.text),
        "sha256": digest.hexdigest(),
        "tasks": [f"{p.parent.name}/{p.name} {p.stat().st_size}" for p in files],
    }
    file = folder / "study_config.json"
    if not file.exists():
        io.write_text(file, json.dumps(config, indent=2) + "\n")
    stored = json.loads(file.read_text(encoding="utf-8"))
    for key, flag in (("scale", "scale"), ("sha256", "text"), ("tasks", "tasks")):
        if stored[key] != config[key]:
            text = ", ".join(stored["text"])
            raise ValueError(
                f"{folder} holds a study at --scale {stored['scale']} of {text} with another "
                f"--{flag}: choose another --state or --out"
            )


def keep_last_checkpoint(run: Path, step: int) -> None:
    """Delete a finished run's other checkpoints: a state is kept, and each has megabytes."""
    for folder in (run / "checkpoints").iterdir():
        if folder.name.isdigit() and int(folder.name) != step:
            shutil.rmtree(folder)
