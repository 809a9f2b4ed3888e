"""A plan as text."""

from __future__ import annotations

from bert_jax.perf.flops import describe_attention
from bert_jax.perf.hardware import GPUS
from bert_jax.utils.tables import format_table
from bert_jax.utils.types import Json

GIB, MS = 2**30, 1e3

COLUMNS = (
    *(
        "slice",
        "mesh",
        "rows",
        "GiB",
        "of",
        "TFLOP",
        "GB moved",
        "MB sent",
        "bound ms",
        "bottleneck",
    ),
    *("compute ms", "memory ms", "interconnect ms", "tokens/s", "utilization"),
)


def render_plan(plan: Json) -> str:
    """A table with a row per slice, then what does not fit and why, and how to read the figures.
    The figures of a step are per chip."""
    rows = [_row(slice_plan) for slice_plan in plan["slices"]]
    lines = [
        f"{plan['batch_size']} rows of {plan['length']} tokens a step, {plan['dtype']}; per chip:",
        format_table(COLUMNS, rows, left=(0, COLUMNS.index("bottleneck"))),
    ]
    for slice_plan in plan["slices"]:
        notes = (
            _network(slice_plan)
            + _missing_memory(slice_plan)
            + _collectives(slice_plan)
            + _max_batch(slice_plan)
            + _variants(slice_plan)
        )
        lines += [f"{slice_plan['topology']}:", *notes] if notes else []
    if plan["attention"] is not None:
        lines.append(f"attention: {describe_attention(plan['attention'])}")
    lines.append(
        "bound: lower limit of the step time, from the compiled program and the chip's published "
        "figures; not a measurement"
    )
    if any(s["topology"].partition(":")[0] in GPUS for s in plan["slices"]):
        lines.append(
            "GPUs: kernels were chosen without timing any; `of` is the .75 of the memory that JAX "
            "reserves by default"
        )
    if plan["dtype"] == "float32":
        lines.append("activations are float32: --run.dtype bfloat16 halves them")
    return "\n".join(lines)


def _row(plan: Json) -> list[str]:
    rows = f"{plan['rows_per_chip'] / plan['accumulate']:g}"
    if plan["accumulate"] > 1:
        rows = f"{plan['accumulate']}x{rows}"
    memory = [f"{plan['bytes'] / GIB:.2f}", f"{plan['memory'] / GIB:.2f}"]
    start = [plan["topology"], "x".join(str(n) for n in plan["mesh"].values()), rows, *memory]
    if not plan["fits"]:
        return [*start, *[""] * 4, "does not fit", *[""] * 5]
    bound = plan["bound"]
    return [
        *start,
        f"{plan['flops'] / 1e12:.2f}",
        f"{plan['traffic'] / 1e9:.1f}",
        f"{plan['sent'] / 1e6:.1f}",
        f"{bound['seconds'] * MS:.1f}",
        bound["binds"],
        *(f"{bound[part] * MS:.1f}" for part in ("compute", "memory", "interconnect")),
        f"{plan['tokens_per_second']:,.0f}",
        f"{plan['utilisation']:.2f}",
    ]


def _missing_memory(plan: Json) -> list[str]:
    if plan["fits"]:
        return []
    missing = f"  {plan['missing'] / GIB:.2f} GiB more than a chip has. Options that reduce memory:"
    return [missing, *(f"    {flag}" for flag in plan["help"])]


def _network(plan: Json) -> list[str]:
    if "network" not in plan:
        return []
    seconds = plan["bound"].get("network", 0.0)
    return [
        f"  {plan['hosts']} hosts: {plan['network'] / 1e6:.1f} MB per GPU over the network, at "
        f"least {seconds * MS:.1f} ms; MB sent and interconnect are those within a host"
    ]


def _collectives(plan: Json) -> list[str]:
    lines = [f"  {kind} {size:,} bytes" for kind, size in plan.get("collectives", {}).items()]
    if plan.get("kernels_not_counted"):
        lines.append(
            f"  {plan['kernels_not_counted']} kernel calls report no costs and are not counted"
        )
    return lines


def _variants(plan: Json) -> list[str]:
    """What adapters cost, beside other choices of what to train."""
    lines = []
    for what, cost in plan.get("trains", {}).items():
        seconds = cost["bound_seconds"]
        bound = "does not fit" if seconds is None else f"bound {seconds * MS:.1f} ms"
        gib = cost["bytes"] / GIB, cost["state_bytes"] / GIB
        lines.append(f"  {what}: {gib[0]:.3f} GiB, of which state {gib[1]:.3f}; {bound}")
    return lines


def _max_batch(plan: Json) -> list[str]:
    if "fit" not in plan:
        return []
    fit = plan["fit"]
    if fit is None:
        return ["  not even one row per chip fits"]
    n = fit["accumulate"]
    accumulate = "" if n is None else f"--optim.accumulate {n} or "
    lines = [
        f"  largest that fits: {fit['rows_per_chip']} rows per chip at once, so {accumulate}"
        f"{fit['batch_size']} rows per step (--data.batch-size, or ROWS in --data.stages)"
    ]
    if plan["fits"]:  # else they stand above
        lines += ["  Beyond that, options that reduce memory:"]
        lines += [f"    {flag}" for flag in plan["help"]]
    return lines
