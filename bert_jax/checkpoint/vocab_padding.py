"""Vocabulary tables whose padding rows differ between a checkpoint and the state.

Training pads the vocabulary to a multiple of the devices that share it (`sharding.pad_vocab`). The
rows are cut, or added as zeros, while a checkpoint is read: so a run resumes on another mesh, and
an exported model has `encoder.vocab_size` rows.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import orbax.checkpoint as ocp

from bert_jax.utils import pytree


def restore_args(like: Any, partial: bool = False) -> ocp.args.PyTreeRestore:
    """Orbax arguments to restore arrays with the shapes, types and shardings of `like`; tables of
    the vocabulary may have more or fewer rows. `partial`: what `like` lacks is not read."""
    args = ocp.checkpoint_utils.construct_restore_args(like)

    def leaf(name: str, arg: Any) -> Any:
        return dataclasses.replace(arg, strict=False) if pytree.is_embedding_table(name) else arg

    args = pytree.map_with_names(leaf, args)
    return ocp.args.PyTreeRestore(like, restore_args=args, partial_restore=partial)
