"""What is looked at before TFDS opens a folder: `features.json` names Python classes, and TFDS
imports whatever module they are said to be in."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

OWN = "tensorflow_datasets.core.features."
# where a name of a class may stand: today's files, as protobuf writes or reads them, and old ones
NAMES = ("pythonClassName", "python_class_name", "type")
HIDDEN = ("jsonFeature", "json_feature")  # text in which TFDS may find more names


def check(folder: str | Path) -> None:
    """Every `features.json` in a folder that TFDS wrote, in any depth. ValueError: one cannot be
    read, or names a class that is not TFDS's own."""
    for file in sorted(Path(folder).rglob("features.json")):
        try:
            named = list(_classes(json.loads(file.read_text(encoding="utf-8"))))
        except (OSError, ValueError, RecursionError) as e:
            raise ValueError(f"{file} is not readable JSON: {e}; write the dataset again") from e
        strange = next((n for n in named if not n.startswith(OWN)), None)
        if strange is not None:
            raise ValueError(
                f"{file} names {strange!r:.80}, code that TFDS would run: only features of TFDS "
                "itself can be read; write the dataset with these"
            )


def _classes(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        yield from (v for k, v in value.items() if k in NAMES and isinstance(v, str))
        yield from (k for k in HIDDEN if k in value)
        value = list(value.values())
    if isinstance(value, list):
        for inner in value:
            yield from _classes(inner)
