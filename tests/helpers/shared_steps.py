"""Compiled steps that equal experiments of one process share.

Most of the tests' time is tracing and compiling, and they train the same tiny models again and
again. Steps are pure functions, so those of equal programs may be shared.
"""

from typing import Any

import jax
import numpy as np

from bert_jax.config import Experiment, Mesh, replace
from bert_jax.distributed import sharding
from bert_jax.objectives import Objective
from bert_jax.training import step
from bert_jax.training.step import BoundSeed, CompiledSteps
from tests.helpers import tiny_configs

ONE = Mesh(1)
_SHARED: dict[Any, CompiledSteps] = {}


def compile_steps(
    config: Experiment, objective: Objective, mesh: jax.sharding.Mesh
) -> CompiledSteps:
    """What `step.compile_steps` returns, perhaps from an earlier call."""
    vocabulary = getattr(objective, "vocabulary", None) or ()
    tables = tuple(np.asarray(x).tobytes() for x in vocabulary)
    key = program(config), type(objective), tables, mesh
    if key not in _SHARED:
        _SHARED[key] = step.compile_steps(config, objective, mesh)
    seed = np.uint32(config.run.seed % 2**32)
    bound = {
        name: value._replace(seed=seed)
        for name, value in _SHARED[key]._asdict().items()
        if isinstance(value, BoundSeed)
    }
    return _SHARED[key]._replace(**bound)


def program(config: Experiment) -> Experiment:
    """The config without what no program depends on; test_step.py proves that."""
    optim, run = config.optim, config.run
    places = dict(dir="", init=None, init_layers=None, seed=0, epochs=None, evals_per_epoch=None)
    often = dict(log_every=1, save_every=1, eval_every=1, eval_batches=1, max_to_keep=1)
    return replace(
        config,
        data=dict(path=None, mix=None, corpus=None),
        optim=dict(decay_steps=None),
        run=places | often | dict(steps=optim.decay_steps or run.steps),
    )


def tiny(config: Experiment, mesh: Mesh = ONE) -> CompiledSteps:
    """The steps of one of `tiny_configs` on the first devices that its mesh needs."""
    devices = jax.devices()[: abs(mesh.data * mesh.fsdp * mesh.tensor)]
    return compile_steps(config, tiny_configs.build(config), sharding.make_mesh(mesh, devices))


def clear() -> None:
    _SHARED.clear()
