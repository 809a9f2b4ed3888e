"""What a config's train step would need and be bound by on TPU slices, without one.

The step is the real one, compiled ahead of time; the times are bounds from published figures
(chips.py) and no measurement: no step can be faster, and real ones are slower.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from bert_jax.config import Experiment, replace
from bert_jax.perf import flops
from bert_jax.perf.collectives import KINDS
from bert_jax.perf.hardware import Chip
from bert_jax.perf.plan.aot import StepCost, compile_step, shape
from bert_jax.perf.plan.render import render_plan
from bert_jax.perf.plan.topologies import Topology, describe_topology

__all__ = ["plan", "render_plan", "roofline_bound"]


def plan(
    config: Experiment,
    topologies: Sequence[str],
    fit: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """`{"config": ..., "slices": [one object per topology]}`, as `render` prints it. With `fit`
    also a micro-batch that fits where one of twice as many rows does not. ValueError: see
    `described` and `compiled`."""
    slices = [describe_topology(name) for name in topologies]
    found = []
    for one in slices:
        say(f"compiling for {one.name}: a minute or so")
        found.append(plan_topology(config, one, compile_step(config, one.devices)))
        if fit:
            found[-1]["fit"] = max_micro_batch(config, one, found[-1]["fits"], say)
    rows, length = shape(config)
    return {
        "bound": "from compiled steps and published figures; not a measurement",
        "batch_size": rows,
        "length": length,
        "dtype": config.run.dtype,
        "slices": found,
    }


def plan_topology(config: Experiment, one: Topology, step: StepCost) -> dict[str, Any]:
    """One slice's part of the answer, per chip and step."""
    chips, chip = len(one.devices), one.chip
    mesh = _mesh(config, chips)
    found: dict[str, Any] = {
        "topology": one.name,
        "chips": chips,
        "mesh": mesh,
        "accumulate": config.optim.accumulate,
        "rows_per_chip": shape(config)[0] / (mesh["data"] * mesh["fsdp"]),
        "fits": step.fits,
        "bytes": step.bytes,
        "memory": step.limit or chip.memory,
        "state_bytes": step.state,
    }
    if not step.fits or step.costs is None:
        found["missing"] = step.bytes - found["memory"]
        return found | {"help": advice(config, mesh, step)}
    kinds = {k: sum(c.total for c in step.collectives if c.kind == k) for k in KINDS}
    found |= {
        "flops": step.costs.flops,
        "traffic": step.costs.bytes,
        "kernels": step.costs.kernels,
        "kernels_not_counted": step.costs.unknown,
        "collectives": {k: n for k, n in kinds.items() if n},
        "sent": step.sent,
        "bound": roofline_bound(chip, step.costs.flops, step.costs.bytes, step.sent),
    }
    rows, length = shape(config)
    seconds = found["bound"]["seconds"]
    useful = flops.step(config, rows, length)
    found["tokens_per_second"] = rows * length / seconds
    found["utilisation"] = useful / (seconds * chips * chip.flops)
    return found


def roofline_bound(chip: Chip, flops: float, traffic: float, sent: float) -> dict[str, Any]:
    """Seconds of a step at the least: that of the three which takes longest, were the others
    hidden behind it altogether."""
    parts = {
        "compute": flops / chip.flops,
        "memory": traffic / chip.bandwidth,
        "interconnect": sent / chip.links,
    }
    binds = max(parts, key=lambda k: parts[k])
    return {**parts, "binds": binds, "seconds": parts[binds]}


def max_micro_batch(
    config: Experiment, one: Topology, fits: bool, say: Callable[[str], None]
) -> dict[str, Any] | None:
    """The largest micro-batch of a chip that compiles, among the config's halved and doubled,
    since each takes a minute to compile; and how the config's own batch is accumulated in parts
    that are no larger. None: not even one row fits."""
    rows, _ = shape(config)
    mesh = _mesh(config, len(one.devices))
    ways = mesh["data"] * mesh["fsdp"]
    n = max(1, rows // ways // config.optim.accumulate)

    def tried(n: int) -> bool:
        say(f"{one.name}: does {n} rows a chip fit?")
        alone = replace(config, data=dict(batch_size=n * ways, stages=None))
        return compile_step(replace(alone, optim=dict(accumulate=1)), one.devices).fits

    if fits:
        while n < 4096 and tried(2 * n):
            n *= 2
    else:
        while n and not tried(n):
            n //= 2
    if not n:
        return None
    each = rows // ways  # at least 1 and whole, or the step had been refused
    parts = next(a for a in range(-(-each // n), each + 1) if each % a == 0)
    return {"rows_per_chip": n, "batch_size": n * ways, "accumulate": parts}


def advice(config: Experiment, mesh: dict[str, int], step: StepCost) -> list[str]:
    """What would make a step smaller, the cheapest in time first."""
    local = shape(config)[0] // (mesh["data"] * mesh["fsdp"]) // config.optim.accumulate
    ways = []
    if config.run.dtype == "float32":
        ways.append("--run.dtype bfloat16: activations of half the size")
    if local > 1:
        n = 2 * config.optim.accumulate
        ways.append(f"--optim.accumulate {n}: micro-batches of {local // 2} rows, not {local}")
    if config.run.remat != "full":
        more = "dots" if config.run.remat == "none" else "full"
        ways.append(f"--run.remat {more}: a layer computes more twice and keeps less")
    if mesh["data"] > 1 and step.state > 2**28:
        n = 2 * mesh["fsdp"]
        ways.append(
            f"--mesh.fsdp {n}: state of {step.state / 2 / 2**30:.2f} GiB a chip, not "
            f"{step.state / 2**30:.2f}"
        )
    if local > 1:
        ways.append("more chips, or a smaller data.batch_size: fewer rows a chip")
    return ways


def _mesh(config: Experiment, chips: int) -> dict[str, int]:
    sizes = {"data": config.mesh.data, "fsdp": config.mesh.fsdp, "tensor": config.mesh.tensor}
    known = 1
    for n in sizes.values():
        known *= n if n > 0 else 1
    return {k: n if n > 0 else chips // known for k, n in sizes.items()}
