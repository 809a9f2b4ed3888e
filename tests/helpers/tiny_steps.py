"""Compiled steps of tiny experiments, built once for all tests of a module."""

import functools

import jax

from bert_jax.config import Experiment, Mesh
from bert_jax.distributed import sharding
from bert_jax.training.step import CompiledSteps, compile_steps
from tests.helpers import tiny_configs

ONE = Mesh(1)


@functools.lru_cache(maxsize=32)
def build_steps(config: Experiment, mesh: Mesh = ONE) -> CompiledSteps:
    """The steps of an experiment on the first devices that its mesh needs. They are traced and
    compiled at their first call, and for tests of the same module only then."""
    devices = jax.devices()[: abs(mesh.data * mesh.fsdp * mesh.tensor)]
    return compile_steps(config, tiny_configs.build(config), sharding.make_mesh(mesh, devices))
