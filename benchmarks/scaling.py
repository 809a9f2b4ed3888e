"""Estimate the large recipes on 1 to 4,096 chips: docs/scaling.{json,md,png}.

    python benchmarks/scaling.py compile        # add missing steps to docs/scaling.json; minutes
    python benchmarks/scaling.py compile-gpu    # those of H100 nodes, with bert-jax[plan-gpu]
    python benchmarks/scaling.py page           # write the tables and the plot from it

`plan` compiles the steps. For v5e beyond its largest slice, the formulas below extrapolate from
compiled steps; these rows are marked.
"""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Any

from compiled_steps import (
    date_and_versions,
    format_versions,
    read_cases,
    replace_table,
    run_command,
    write_cases,
)

ROOT = Path(__file__).parents[1]
DATA, PAGE, PLOT = (ROOT / "docs" / f"scaling.{kind}" for kind in ("json", "md", "png"))
BEGIN, END = "<!-- table: benchmarks/scaling.py page -->", "<!-- end of table -->"

PUBLISHED = {  # batch sizes at length 512
    "bert_large": 256,
    "albert_xxlarge": 4096,
    "electra_large": 2048,
    "roberta_large": 8192,
    "spanbert_large": 256,
}
PLOTTED = ("bert_large", "albert_xxlarge", "electra_large")
# Rows per chip and micro-batch, halved until they fit.
MICRO = {"v5e": 8, "v6e": 16, "v5p": 32, "h100": 64}
EXTRA_SLICES = (
    "v6e:16x16",
    "v5p:4x4x4",
    "v5p:16x16x16",
    "v5e:8x8",
    "v5e:1x1",
)  # for the plotted configs
CHIP_COUNTS = (1, 4, 16, 64, 256, 1024, 4096)
ONE_ROW_PER_CHIP = ("albert_xxlarge", "electra_large")  # also compiled with 256 rows
NODES = ("1", "4", "8", "2x8", "4x8", "8x8", "16x8", "32x8", "128x8", "512x8")  # of H100s


def list_gpu_cases() -> list[tuple[str, str, int]]:
    """(config, nodes, batch size): the published batch, or one row per GPU."""
    gpus = {nodes: math.prod(map(int, nodes.split("x"))) for nodes in NODES}
    return [(c, f"h100:{s}", max(PUBLISHED[c], n)) for c in PLOTTED for s, n in gpus.items()]


def list_tpu_cases() -> list[tuple[str, str, int]]:
    """(config, slice, batch size), the most important first."""
    chips = {"v5p:16x16x16": 4096}
    cases = [(c, s, n) for s in ("v5e:4x4", "v5e:16x16") for c, n in PUBLISHED.items()]
    cases += [(c, "v5e:16x16", 256) for c in ONE_ROW_PER_CHIP]
    return cases + [
        (c, s, max(PUBLISHED[c], chips.get(s, 1))) for s in EXTRA_SLICES for c in PLOTTED
    ]


def compile_all(compiler: str, wanted: list[tuple[str, str, int]]) -> None:
    from bert_jax.utils.platform import without_tpu_env

    without_tpu_env()
    cases = read_cases(DATA)
    for name, topology, rows in wanted:
        if not any(_key(c) == (name, topology, rows) for c in cases):
            cases.append(compile_case(name, topology, rows) | date_and_versions(compiler))
            write_cases(DATA, cases)


def compile_case(name: str, topology: str, rows: int) -> dict[str, Any]:
    """One case in bfloat16 with `auto` attention; the micro-batch is halved until it fits."""
    from bert_jax.config import from_python_file, replace
    from bert_jax.perf.plan import plan, topologies

    chips = len(topologies.describe_topology(topology).devices)
    max_rows = MICRO[topology.partition(":")[0]] // (2 if name == "albert_xxlarge" else 1)
    micro_batch = min(rows // chips, max_rows)
    while micro_batch:
        config = replace(
            from_python_file(str(ROOT / "configs" / f"{name}.py")),
            data=dict(batch_size=rows),
            optim=dict(accumulate=rows // chips // micro_batch),
            run=dict(dtype="bfloat16"),
        )
        result = plan(config, [topology], log=lambda x: print(name, x, flush=True))
        step = result["slices"][0]
        print(name, topology, rows, micro_batch, step["fits"], step["bytes"], flush=True)
        if step["fits"]:
            return {"config": name, "batch_size": rows, "length": result["length"], **step}
        micro_batch //= 2
    return {"config": name, "batch_size": rows, **step}


def _key(case: dict[str, Any]) -> tuple[str, str, int]:
    return case["config"], case["topology"], case["batch_size"]


# ---- extrapolation


def ring_bytes(size: float, chips: int) -> float:
    """The bytes that each chip sends at least to sum `size` bytes over all chips."""
    return 2 * size * (chips - 1) / chips


def sum_seconds(size: float, chips: int, chip: Any) -> float:
    """The seconds to sum over chips: by links within a slice or node, then each chip's share by
    the network."""
    near = min(chips, chip.max_chips)
    seconds = ring_bytes(size, near) / chip.link_bandwidth
    if chips > near:
        seconds += ring_bytes(size / near, chips // near) / chip.network_bandwidth
    return seconds


def extrapolate(name: str, cases: list[dict[str, Any]], chips: int, chip: Any) -> dict[str, Any]:
    """FLOPs scale with rows and messages with the gradient. Memory is linear in the micro-batch,
    through the steps compiled for v5e."""
    points = [c for c in cases if c["config"] == name and c["fits"] and "v5e" in c["topology"]]
    rows = max(PUBLISHED[name], chips)
    rows_per_chip = rows // chips
    memory: dict[int, int] = {}  # of a micro-batch the largest, as with accumulation
    for c in points:
        rows_at_once = int(c["rows_per_chip"] / c["accumulate"])
        memory[rows_at_once] = max(memory.get(rows_at_once, 0), c["bytes"])
    largest, smallest = max(memory), min(memory)
    micro_batch = min(rows_per_chip, largest)
    state = points[0]["state_bytes"]
    base, low = (memory[smallest], smallest) if largest > smallest else (state, 0)
    slope = (memory[largest] - base) / (largest - low)
    size = points[0]["collectives"]["all-reduce"]
    flops = min(c["flops"] / c["rows_per_chip"] for c in points) * rows_per_chip
    return {
        "topology": f"{chip.name} x {chips}",
        "chips": chips,
        "batch_size": rows,
        "rows_per_chip": rows_per_chip,
        "accumulate": rows_per_chip // micro_batch,
        "bytes": base + slope * (micro_batch - low),
        "sent": ring_bytes(size, chips),
        "compute": flops / chip.flops,
        "interconnect": sum_seconds(size, chips, chip),
        "bound": {},
        "formula": True,
    }


def all_steps(name: str, cases: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The compiled and extrapolated steps of a config, ordered by chip and number of chips."""
    from bert_jax.perf.hardware import CHIPS

    compiled = [c for c in cases if c["config"] == name and c["fits"]]
    compiled = [c for c in compiled if c["batch_size"] == max(PUBLISHED[name], c["chips"])]
    if not compiled:
        return []
    steps = [{**c, **c["bound"], "formula": False} for c in compiled]
    v5e_counts = {c["chips"] for c in compiled if c["topology"].startswith("v5e")}
    for n in CHIP_COUNTS:
        if n not in v5e_counts:
            steps.append(extrapolate(name, cases, n, CHIPS["v5e"]))
    order = ("v5e", "v5p", "v6e", "h10")
    return sorted(steps, key=lambda c: (order.index(c["topology"][:3]), c["chips"]))


# ---- the page


def format_tables(cases: list[dict[str, Any]]) -> str:
    text = []
    for name in PLOTTED:
        text += [f"### {name}", ""]
        text.append(
            "| chips | rows a step | rows a chip | GiB held | MB sent | compute ms | memory ms | "
            "interconnect ms | network ms | bottleneck |"
        )
        text.append("|---|---:|---:|---:|---:|---:|---:|---:|---:|---|")
        text += [_row(c) for c in all_steps(name, cases)]
        text.append("")
    text += ["### All published batches", ""]
    text.append(
        "| config | slice | rows a chip | GiB held | state GiB | TFLOP | bound ms | bottleneck |"
    )
    text.append("|---|---|---:|---:|---:|---:|---:|---|")
    for c in sorted(cases, key=lambda c: (c["config"], c["chips"])):
        if c["topology"] in ("v5e:4x4", "v5e:16x16") and c["batch_size"] == PUBLISHED[c["config"]]:
            text.append(_published_row(c))
    return "\n".join(text)


def _row(c: dict[str, Any]) -> str:
    memory = f"{c['memory'] * 1e3:.1f}" if "binds" in c and not c["formula"] else "-"
    slowest = max(("compute", "interconnect"), key=lambda k: c[k])
    mark = " (formula)" if c["formula"] else ""
    network = f"{c['network'] * 1e3:.1f}" if "network" in c["bound"] else "-"
    return (
        f"| {c['topology']}{mark} | {c['batch_size']} | {_rows(c)} | {c['bytes'] / 2**30:.1f} | "
        f"{c['sent'] / 1e6:.0f} | {c['compute'] * 1e3:.1f} | {memory} | "
        f"{c['interconnect'] * 1e3:.1f} | {network} | {c.get('binds', slowest)} |"
    )


def _rows(c: dict[str, Any]) -> str:
    n = int(c["rows_per_chip"])
    return f"{n}" if c["accumulate"] == 1 else f"{c['accumulate']} x {n // c['accumulate']}"


def _published_row(c: dict[str, Any]) -> str:
    head = f"| {c['config']} | {c['topology']} | {_rows(c)} | {c['bytes'] / 2**30:.1f} | "
    if not c["fits"]:
        return head + f"{c['state_bytes'] / 2**30:.1f} | | does not fit | |"
    b = c["bound"]
    return head + (
        f"{c['state_bytes'] / 2**30:.1f} | {c['flops'] / 1e12:.1f} | {b['seconds'] * 1e3:.1f} | "
        f"{b['binds']} |"
    )


def draw(cases: list[dict[str, Any]]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(PLOTTED), figsize=(13, 4), sharey=True)
    for axis, name in zip(axes, PLOTTED, strict=True):
        for chip, color in (("v5e", "tab:blue"), ("h100", "tab:green")):
            steps = [c for c in all_steps(name, cases) if c["topology"].startswith(chip)]
            for part, style in (("compute", "-"), ("memory", ":"), ("interconnect", "--")):
                points = [(c, _milliseconds(c, part)) for c in steps if c.get(part, 0) > 0]
                xy = [(c["chips"], ms) for c, ms in points]
                axis.plot(*zip(*xy, strict=True), style, color=color, label=f"{chip} {part}")
                if compiled := [(c["chips"], ms) for c, ms in points if not c["formula"]]:
                    axis.plot(*zip(*compiled, strict=True), "o", color=color)
        axis.set(xscale="log", yscale="log", xlabel="chips", title=name)
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("least time of a step, ms")
    axes[0].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(PLOT, dpi=110)


def _milliseconds(step: dict[str, Any], part: str) -> float:
    """Of a sum over nodes, both parts: within each node, and then between them."""
    network = step["bound"].get("network", 0.0) if part == "interconnect" else 0.0
    return (step[part] + network) * 1e3


def write_page() -> None:
    cases = read_cases(DATA)
    head = f"Compiled {format_versions(cases)}; {DATA.name} says which.\n"
    replace_table(PAGE, BEGIN, END, f"{head}\n{format_tables(cases)}")
    draw(cases)


if __name__ == "__main__":
    run_command(
        __doc__,
        {
            "compile": partial(compile_all, "libtpu", list_tpu_cases()),
            "compile-gpu": partial(compile_all, "jax-cuda13-plugin", list_gpu_cases()),
            "page": write_page,
        },
    )
