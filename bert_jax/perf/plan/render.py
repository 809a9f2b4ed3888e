"""A plan for the eye."""

from __future__ import annotations

from typing import Any

GIB, MS = 2**30, 1e3


def render_plan(found: dict[str, Any]) -> str:
    """A line per slice, then what does not fit and why, and how the figures are meant."""
    lines = [
        f"{found['batch_size']} rows of {found['length']} tokens a step, {found['dtype']}; "
        "per chip:",
        f"{'slice':<14}{'mesh':>12}{'rows':>12}{'GiB':>8}{'of':>7}{'TFLOP':>9}{'GB moved':>10}"
        f"{'MB sent':>10}{'bound ms':>10}  binds",
    ]
    for one in found["slices"]:
        lines.append(_line(one))
        lines += _why_not(one) + _collectives(one) + _fit(one)
    lines.append(
        "bound: the step's least time by the chip's published figures, from the compiled program: "
        "not a measurement, and no real step reaches it"
    )
    if found["dtype"] == "float32":
        lines.append("activations are float32: --run.dtype bfloat16 halves them")
    return "\n".join(lines)


def _line(one: dict[str, Any]) -> str:
    mesh = "x".join(str(n) for n in one["mesh"].values())
    rows = f"{one['rows_per_chip'] / one['accumulate']:g}"
    if one["accumulate"] > 1:
        rows = f"{one['accumulate']}x{rows}"
    start = (
        f"{one['topology']:<14}{mesh:>12}{rows:>12}{one['bytes'] / GIB:>8.2f}"
        f"{one['memory'] / GIB:>7.2f}"
    )
    if not one["fits"]:
        return start + "  does not fit"
    b = one["bound"]
    return start + (
        f"{one['flops'] / 1e12:>9.2f}{one['traffic'] / 1e9:>10.1f}{one['sent'] / 1e6:>10.1f}"
        f"{b['seconds'] * MS:>10.1f}  {b['binds']} (compute {b['compute'] * MS:.1f}, memory "
        f"{b['memory'] * MS:.1f}, interconnect {b['interconnect'] * MS:.1f}); at most "
        f"{one['tokens_per_second']:,.0f} tokens/s, utilisation {one['utilisation']:.2f}"
    )


def _why_not(one: dict[str, Any]) -> list[str]:
    if one["fits"]:
        return []
    short = f"  {one['missing'] / GIB:.2f} GiB more than a chip has. What would help:"
    return [short, *(f"    {way}" for way in one["help"])]


def _collectives(one: dict[str, Any]) -> list[str]:
    kinds = one.get("collectives", {})
    lines = [f"  {kind} {size:,} bytes" for kind, size in kinds.items()]
    if one.get("kernels_not_counted"):
        lines.append(f"  {one['kernels_not_counted']} kernel calls tell no costs: not counted")
    return lines


def _fit(one: dict[str, Any]) -> list[str]:
    if "fit" not in one:
        return []
    fit = one["fit"]
    if fit is None:
        return ["  not even one row a chip fits"]
    return [
        f"  largest that fits, by doublings: {fit['rows_per_chip']} rows a chip at once, so "
        f"--optim.accumulate {fit['accumulate']} or --data.batch_size {fit['batch_size']}"
    ]
