"""Opening what TFDS has, by name or as a folder. A folder is looked at first: `features.json`
names Python classes, and TFDS imports whatever module they are said to be in."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

TFDS_FEATURES = "tensorflow_datasets.core.features."
# where a name of a class may stand: today's files, as protobuf writes or reads them, and old ones
CLASS_NAME_KEYS = ("pythonClassName", "python_class_name", "type")
EMBEDDED_JSON_KEYS = ("jsonFeature", "json_feature")  # text in which TFDS may find more names


@contextlib.contextmanager
def open_builder(source: str, name: str, form: str) -> Iterator[Any]:
    """The builder of a dataset, or of a folder, called `name` in `source`; prepared in ArrayRecord
    if need be. ValueError: it cannot be opened, here or in the block; `form` was expected."""
    import tensorflow_datasets as tfds

    builder: Any  # pyright cannot follow the library's decorators
    try:
        if Path(name).is_dir():
            check_features_json(name)
            builder = tfds.builder_from_directory(name)
        else:
            builder = tfds.builder(name, file_format="array_record")
            builder.download_and_prepare()
        yield builder
    except Exception as e:  # of many kinds, some of which print a page
        reason = str(e).strip().splitlines()[0] if str(e).strip() else type(e).__name__
        raise ValueError(
            f"{source} cannot be opened: {reason}; expected {form} of a TFDS dataset"
        ) from e


def check_features_json(folder: str | Path) -> None:
    """Every `features.json` in a folder that TFDS wrote, in any depth. ValueError: one cannot be
    read, or names a class that is not TFDS's own."""
    for file in sorted(Path(folder).rglob("features.json")):
        try:
            named = list(_class_names(json.loads(file.read_text(encoding="utf-8"))))
        except (OSError, ValueError, RecursionError) as e:
            raise ValueError(f"{file} is not readable JSON: {e}; write the dataset again") from e
        strange = next((n for n in named if not n.startswith(TFDS_FEATURES)), None)
        if strange is not None:
            raise ValueError(
                f"{file} names {strange!r:.80}, code that TFDS would run: only features of TFDS "
                "itself can be read; write the dataset with these"
            )


def _class_names(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        yield from (v for k, v in value.items() if k in CLASS_NAME_KEYS and isinstance(v, str))
        yield from (k for k in EMBEDDED_JSON_KEYS if k in value)
        value = list(value.values())
    if isinstance(value, list):
        for inner in value:
            yield from _class_names(inner)
