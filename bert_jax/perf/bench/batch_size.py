"""Search the largest batch whose step fits the device's memory, by compiling without running."""

from __future__ import annotations

import jax

from bert_jax.distributed import constraints
from bert_jax.perf.batch_search import MaxBatch, max_batch_size
from bert_jax.perf.bench import device
from bert_jax.perf.bench.inputs import BenchInputs
from bert_jax.perf.bench.train_step import compile_for_batch_size
from bert_jax.perf.step_memory import step_memory
from bert_jax.utils.errors import OUT_OF_MEMORY

MAX_ROWS = 1 << 20  # no larger batch is tried


def find_max_batch_size(inputs: BenchInputs, mesh: jax.sharding.Mesh) -> MaxBatch:
    """The largest batch of the inputs' config on a mesh. A batch that runs out of memory while
    it is compiled does not fit."""
    devices = list(mesh.devices.flat)
    batch_axes = constraints.axis_size(mesh, constraints.BATCH_AXES)

    def peak_of(batch_size: int) -> int | None:
        try:
            compiled = compile_for_batch_size(inputs, devices, batch_size)
        except jax.errors.JaxRuntimeError as e:
            if OUT_OF_MEMORY not in str(e):
                raise
            return None
        return step_memory(compiled)["peak"]

    limit = device.memory_limit(devices[0])
    return max_batch_size(peak_of, limit, batch_axes * inputs.config.optim.accumulate, MAX_ROWS)
