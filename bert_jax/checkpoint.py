"""Checkpoints: Orbax writes {state, config} under `checkpoints/STEP`, asynchronously.

A step folder appears under its name only when it is whole, so a run that is killed while it
saves goes on from the step before. The newest few are kept, and the best by validation loss.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as policies

from bert_jax.config import Experiment, to_dict


class Checkpoints:
    """The checkpoints of one run folder."""

    def __init__(self, folder: Path, keep: int = 3, read_only: bool = False) -> None:
        logging.getLogger("absl").setLevel(logging.ERROR)  # Orbax tells of its own choices
        newest = policies.LatestN(keep)
        best = policies.BestN(
            get_metric_fn=_loss, reverse=True, n=1, keep_checkpoints_without_metrics=False
        )
        self._manager = ocp.CheckpointManager(
            folder.absolute(),
            options=ocp.CheckpointManagerOptions(
                preservation_policy=policies.AnyPreservationPolicy([newest, best]),
                best_fn=_loss,  # without it the metrics are not written, and a restart forgets
                best_mode="min",
                create=not read_only,
                read_only=read_only,
            ),
            item_names=("state", "config"),
        )

    def steps(self) -> list[int]:
        return sorted(self._manager.all_steps())

    def newest(self) -> int | None:
        return self._manager.latest_step()

    def save(
        self, step: int, state: Any, config: Experiment, metrics: dict[str, float] | None = None
    ) -> None:
        """Begin to write; returns when the arrays are copied, before they are on disk."""
        self._manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(state), config=ocp.args.JsonSave(to_dict(config))
            ),
            metrics=metrics,
            force=True,
        )

    def restore(self, step: int, like: Any) -> Any:
        """The state of a step, with the shapes, types and shardings of `like`."""
        args = ocp.args.Composite(state=ocp.args.StandardRestore(like))
        return self._manager.restore(step, args=args)["state"]

    def restore_params(self, step: int, like: Any) -> Any:
        """The parameters alone; the optimiser's moments are not read."""
        item = {"params": like}
        args = ocp.args.PyTreeRestore(
            item,
            restore_args=ocp.checkpoint_utils.construct_restore_args(item),
            partial_restore=True,
        )
        return self._manager.restore(step, args=ocp.args.Composite(state=args))["state"]["params"]

    def close(self) -> None:
        """Wait until everything is on disk."""
        self._manager.wait_until_finished()
        self._manager.close()


def _loss(metrics: Any) -> float:
    return metrics["eval_loss"]


def abstract(tree: Any, shardings: Any) -> Any:
    """Shapes, types and shardings of a tree that need not exist."""
    return jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), tree, shardings
    )
