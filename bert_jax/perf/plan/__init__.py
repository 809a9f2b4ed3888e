"""Predict memory, communication and bottleneck of a config's train step on TPUs and GPUs.

The step is the real one, compiled ahead of time. The times are lower bounds from published figures
(hardware.py), not measurements: real steps are slower.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

from bert_jax.config import Experiment, replace
from bert_jax.distributed import sharding
from bert_jax.perf import flops
from bert_jax.perf.batch_search import max_batch_size
from bert_jax.perf.collectives import KINDS
from bert_jax.perf.hardware import GPUS, Chip
from bert_jax.perf.plan.aot import StepCost, compile_step
from bert_jax.perf.plan.render import render_plan
from bert_jax.perf.plan.topologies import Topology, describe_topology
from bert_jax.perf.stand_ins import batch_shape
from bert_jax.perf.training_variants import adapters_name, training_variants
from bert_jax.utils.types import Json

__all__ = ["plan", "render_plan", "roofline_bound"]

MAX_ROWS_PER_CHIP = 4096  # no larger micro-batch is tried
MAX_GPU_SHARE = 0.92  # of the memory; the driver and the libraries take the rest


def plan(
    config: Experiment,
    topologies: Sequence[str],
    fit: bool = False,
    log: Callable[[str], None] = lambda _: None,
) -> Json:
    """The JSON object that `render_plan` prints: the config's shapes, and under "slices" one
    object per topology. With `fit` each also has the largest micro-batch that fits.

    ValueError: see `describe_topology` and `compile_step`.
    """
    slices = []
    for topology in [describe_topology(name) for name in topologies]:
        log(f"compiling for {topology.name}: this takes about a minute")
        slice_plan = plan_topology(config, topology, compile_step(config, topology))
        for name, variant in training_variants(config).items():
            log(f"compiling for {topology.name}, {name}")
            other = plan_topology(variant, topology, compile_step(variant, topology))
            slice_plan.setdefault("trains", {adapters_name(config): _cost(slice_plan)})
            slice_plan["trains"][name] = _cost(other)
        if fit:
            slice_plan["fit"] = max_micro_batch(config, topology, slice_plan, log)
        slices.append(slice_plan)
    rows, length = batch_shape(config)
    return {
        "bound": "from compiled steps and published figures; not a measurement",
        "batch_size": rows,
        "length": length,
        "dtype": config.run.dtype,
        "attention": flops.attention_split(config.encoder, length),
        "slices": slices,
    }


def _cost(slice_plan: Json) -> Json:
    """Memory and bound of a step, to compare what to train."""
    seconds = slice_plan["bound"]["seconds"] if "bound" in slice_plan else None
    names = ("fits", "bytes", "state_bytes")
    return {**{name: slice_plan[name] for name in names}, "bound_seconds": seconds}


def plan_topology(config: Experiment, topology: Topology, step: StepCost) -> Json:
    """The object of one slice, per chip and step."""
    chips, chip = len(topology.devices), _chip_at(topology.chip, config.run.dtype)
    mesh = sharding.mesh_shape(config.mesh, chips)
    rows, length = batch_shape(config)
    slice_plan: Json = {
        "topology": topology.name,
        "chips": chips,
        "mesh": mesh,
        "accumulate": config.optim.accumulate,
        "rows_per_chip": rows / (mesh["data"] * mesh["fsdp"]),
        "fits": step.fits,
        "bytes": step.bytes,
        "memory": step.limit or chip.memory,
        "state_bytes": step.state,
    }
    if topology.hosts > 1:
        slice_plan["hosts"] = topology.hosts
    slice_plan["help"] = advice(config, mesh, step, topology)
    if not step.fits or step.costs is None:
        return slice_plan | {"missing": step.bytes - slice_plan["memory"]}
    bytes_by_kind = {k: sum(c.total_bytes for c in step.collectives if c.kind == k) for k in KINDS}
    bound = roofline_bound(chip, step.costs.flops, step.costs.bytes, step.sent, step.network)
    model_flops = flops.per_step(config, rows, length)
    return slice_plan | {
        "flops": step.costs.flops,
        "traffic": step.costs.bytes,
        "kernels": step.costs.kernels,
        "kernels_not_counted": step.costs.unknown,
        "collectives": {kind: size for kind, size in bytes_by_kind.items() if size},
        "sent": step.sent,
        **({"network": step.network} if topology.hosts > 1 else {}),
        "bound": bound,
        "tokens_per_second": rows * length / bound["seconds"],
        "utilisation": model_flops / (bound["seconds"] * chips * chip.flops),
    }


def _chip_at(chip: Chip, dtype: str) -> Chip:
    """The chip with its matrix products per second at `dtype`: GPUs multiply float32 as TF32, at
    half the rate of bfloat16 (hardware.PEAKS); TPUs round it to bfloat16."""
    is_slower = dtype == "float32" and chip in GPUS.values()
    return dataclasses.replace(chip, flops=chip.flops / 2) if is_slower else chip


def roofline_bound(
    chip: Chip, flops: float, traffic: float, sent: float, network: float = 0.0
) -> Json:
    """Least seconds of a step: the longest of compute, memory, interconnect and the network
    between hosts, as if the others were hidden behind it."""
    parts = {
        "compute": flops / chip.flops,
        "memory": traffic / chip.bandwidth,
        "interconnect": sent / chip.link_bandwidth,
    }
    if network and chip.network_bandwidth:
        parts["network"] = network / chip.network_bandwidth
    longest = max(parts, key=lambda part: parts[part])
    return {**parts, "binds": longest, "seconds": parts[longest]}


def max_micro_batch(
    config: Experiment, topology: Topology, slice_plan: Json, log: Callable[[str], None]
) -> Json | None:
    """The largest micro-batch per chip that compiles, and the accumulation that splits the
    config's batch into parts no larger; None if not even one row fits. Parts of the batch are
    compiled with accumulation, whose summed gradient takes memory. The search starts from the
    compiled step of `slice_plan`; each further one takes a minute.
    """
    batch_size, _ = batch_shape(config)
    mesh = sharding.mesh_shape(config.mesh, len(topology.devices))
    batch_axes = mesh["data"] * mesh["fsdp"]
    limit = slice_plan["memory"]

    def peak(fits: bool, size: int) -> int:
        """The bytes, on the side of the limit where the compiler says that they are."""
        return min(size, limit) if fits else max(size, limit + 1)

    def peak_of(rows: int) -> int:
        log(f"{topology.name}: do {rows // batch_axes} rows per chip fit?")
        accumulate = 2 if rows < batch_size else 1
        data = dict(batch_size=accumulate * rows, stages=None)
        micro_batch = replace(config, data=data, optim=dict(accumulate=accumulate))
        step = compile_step(micro_batch, topology)
        return peak(step.fits, step.bytes)

    known = {0: min(slice_plan["state_bytes"], limit)}
    known[batch_size // config.optim.accumulate] = peak(slice_plan["fits"], slice_plan["bytes"])
    largest = max_batch_size(peak_of, limit, batch_axes, MAX_ROWS_PER_CHIP * batch_axes, known)
    if not largest.batch_size:
        return None
    rows = largest.batch_size // batch_axes
    per_chip = batch_size // batch_axes  # a whole number, or compile_step had raised
    accumulate = _next_accumulate(config, batch_axes, -(-per_chip // rows))
    return {"rows_per_chip": rows, "batch_size": largest.batch_size, "accumulate": accumulate}


def _next_accumulate(config: Experiment, batch_axes: int, least: int) -> int | None:
    """The smallest number of equal micro-batches, at least `least`, into which the rows per chip of
    every stage divide; None if there is none."""
    common = math.gcd(*(stage.batch_size // batch_axes for stage in config.stages))
    return next((n for n in range(least, common + 1) if common % n == 0), None)


def advice(
    config: Experiment, mesh: dict[str, int], step: StepCost, topology: Topology
) -> list[str]:
    """Flags that make a step need less memory, the one that costs the least time first. A run
    accepts each of them."""
    batch_axes = mesh["data"] * mesh["fsdp"]
    per_chip = batch_shape(config)[0] // batch_axes
    rows = per_chip // config.optim.accumulate
    flags = []
    if topology.memory_limit and step.bytes < MAX_GPU_SHARE * topology.chip.memory:
        flags.append(
            f"XLA_PYTHON_CLIENT_MEM_FRACTION={MAX_GPU_SHARE} in the environment: JAX may use that "
            "share of the memory, not .75"
        )
    if config.run.dtype == "float32":
        flags.append("--run.dtype bfloat16: activations take half the memory")
    n = _next_accumulate(config, batch_axes, config.optim.accumulate + 1)
    if n is not None:
        flags.append(f"--optim.accumulate {n}: micro-batches of {per_chip // n} rows, not {rows}")
    if config.run.remat != "full":
        remat = "dots" if config.run.remat == "none" else "full"
        flags.append(f"--run.remat {remat}: each layer stores less and computes more twice")
    if mesh["data"] % 2 == 0 and step.state > 2**28:
        data = "" if config.mesh.data < 0 else f"--mesh.data {mesh['data'] // 2} "
        n, gib = 2 * mesh["fsdp"], step.state / 2**30
        flags.append(f"{data}--mesh.fsdp {n}: {gib / 2:.2f} GiB of state per chip, not {gib:.2f}")
    if rows > 1:
        flags.append("more chips, or a smaller batch: fewer rows per chip")
    return flags
