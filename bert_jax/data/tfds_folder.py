"""Open a TFDS dataset by name or as a folder, safely.

`features.json` of a folder names Python classes, and TFDS imports any module that it names. So
the names are checked before TFDS opens a folder."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bert_jax.utils.errors import first_line

TFDS_FEATURES = "tensorflow_datasets.core.features."
# keys of class names: in today's files, as protobuf writes or reads them, and in old files
CLASS_NAME_KEYS = ("pythonClassName", "python_class_name", "type")
EMBEDDED_JSON_KEYS = (
    "jsonFeature",
    "json_feature",
)  # strings of JSON in which TFDS finds more names


@contextlib.contextmanager
def open_builder(source: str, name: str, expected: str) -> Iterator[Any]:
    """The builder of the dataset or folder `name`; a dataset is prepared in ArrayRecord if it is
    not there. ValueError: it cannot be opened, or the block raises; the message names `source`
    (what the user gave) and `expected` (its format)."""
    import tensorflow_datasets as tfds

    builder: Any  # pyright cannot follow the library's decorators
    try:
        if name and Path(name).is_dir():
            check_features_json(name)
            builder = tfds.builder_from_directory(name)
        else:
            builder = tfds.builder(name, file_format="array_record")
            builder.download_and_prepare()
        yield builder
    except Exception as e:  # of many types, some with a page of text
        reason = first_line(e)
        raise ValueError(
            f"{source} cannot be opened: {reason}; expected {expected} of a TFDS dataset"
        ) from e


def check_features_json(folder: str | Path) -> None:
    """Check every `features.json` in a folder, at any depth. ValueError: one cannot be read, or
    names a class that is not TFDS's own."""
    for file in sorted(Path(folder).rglob("features.json")):
        try:
            names = list(_class_names(json.loads(file.read_text(encoding="utf-8"))))
        except (OSError, ValueError, RecursionError) as e:
            raise ValueError(f"{file} is not readable JSON: {e}; write the dataset again") from e
        foreign = next((n for n in names if not n.startswith(TFDS_FEATURES)), None)
        if foreign is not None:
            raise ValueError(
                f"{file} names the class {foreign!r:.80}, whose code TFDS would run: expected "
                "features of TFDS itself; write the dataset with these"
            )


def _class_names(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        yield from (v for k, v in value.items() if k in CLASS_NAME_KEYS and isinstance(v, str))
        yield from (k for k in EMBEDDED_JSON_KEYS if k in value)
        value = list(value.values())
    if isinstance(value, list):
        for inner in value:
            yield from _class_names(inner)
