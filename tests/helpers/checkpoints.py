"""A small state to save, and how it is restored."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np

from bert_jax.checkpoint.manager import Checkpoints
from tests.helpers import tiny_configs

CONFIG = tiny_configs.FAMILIES["bert"]
STATE = {"x": jnp.arange(1000.0)}


def restore_newest(folder: Path) -> tuple[int | None, np.ndarray]:
    checkpoints = Checkpoints(folder)
    step = checkpoints.newest()
    state = checkpoints.restore(int(step or 0), STATE)
    checkpoints.close()
    return step, np.asarray(state["x"])
