"""What a checkpoint holds, compared with what is to be read from it, before anything is read.

TensorStore reports an array of another shape from each of its threads, in hundreds of lines, and
Orbax does not notice that a table of the vocabulary has too many rows (vocab_padding.py cuts them).
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import orbax.checkpoint as ocp
from etils import epath

from bert_jax.config import Experiment, differences, from_dict
from bert_jax.utils import pytree

MAX_LISTED = 3  # arrays in a message


class OtherArrays(ValueError):
    """A checkpoint has other arrays than those that are to be read."""


def check_shapes(step: Any, like: Any) -> None:
    """OtherArrays: the checkpoint in the folder `step` lacks arrays of the tree `like`, or has them
    in other shapes. Tables of the vocabulary may have any number of rows."""
    metadata: Any = ocp.PyTreeCheckpointHandler().metadata(epath.Path(step) / "state")
    stored = pytree.flatten_with_names(getattr(metadata, "tree", metadata))
    wanted = {name: tuple(leaf.shape) for name, leaf in pytree.flatten_with_names(like).items()}
    missing = [name for name in wanted if name not in stored]
    other = [
        f"{name} {list(stored[name].shape)}, here {list(shape)}"
        for name, shape in wanted.items()
        if name in stored and not _alike(name, tuple(stored[name].shape), shape)
    ]
    if missing or other:
        problems = [f"{name} is missing" for name in missing] + other
        more = f" and {len(problems) - MAX_LISTED} more" if len(problems) > MAX_LISTED else ""
        raise OtherArrays(
            f"checkpoint {step} has other arrays than the config describes: "
            f"{'; '.join(problems[:MAX_LISTED])}{more}. Restore the config.json that was saved "
            "with it, or use the version of bert-jax that wrote it"
        )


def _alike(name: str, stored: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    skip = int(pytree.is_embedding_table(name))
    return len(stored) == len(wanted) and stored[skip:] == wanted[skip:]


def check_encoder(step: Any, experiment: Experiment, file: Any) -> None:
    """ValueError: `experiment`, read from `file`, has another encoder than the checkpoint in the
    folder `step` was saved with; dropout rates may differ."""
    values = json.loads((epath.Path(step) / "config" / "metadata").read_text())
    saved = from_dict(Experiment, values).encoder
    alike = dataclasses.replace(
        experiment.encoder, dropout=saved.dropout, attention_dropout=saved.attention_dropout
    )
    changed = [f"{k} was {a!r}, now {b!r}" for k, (a, b) in differences(saved, alike).items()]
    if changed:
        raise ValueError(
            f"{file} has another encoder than checkpoint {step} was saved with: "
            f"{'; '.join(changed)}. Restore the original values"
        )
