"""What 1 to 4,096 chips would do with the large recipes: docs/scaling.{json,md,png}.

    python benchmarks/scaling.py compile    # what is not in docs/scaling.json yet; minutes each
    python benchmarks/scaling.py page       # table and plot from it

Steps are compiled by `plan`; beyond the largest slice of v5e, and for H100, figures follow from
compiled ones by the formulas below, and are marked.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import compiled_steps as steps

ROOT = Path(__file__).parents[1]
DATA, PAGE, PLOT = (ROOT / "docs" / f"scaling.{kind}" for kind in ("json", "md", "png"))
BEGIN, END = "<!-- table: benchmarks/scaling.py page -->", "<!-- end of table -->"

PUBLISHED = {  # rows of 512 tokens a step
    "bert_large": 256,
    "albert_xxlarge": 4096,
    "electra_large": 2048,
    "roberta_large": 8192,
    "spanbert_large": 256,
}
PLOTTED = ("bert_large", "albert_xxlarge", "electra_large")
MICRO = {"v5e": 8, "v6e": 16, "v5p": 32}  # rows a chip at once, halved until it fits
MORE = ("v6e:16x16", "v5p:4x4x4", "v5p:16x16x16", "v5e:8x8", "v5e:1x1")  # of those plotted
NUMBERS = (1, 4, 16, 64, 256, 1024, 4096)  # of chips
ONE_ROW = ("albert_xxlarge", "electra_large")  # whose batch leaves more on 256 chips


def cases() -> list[tuple[str, str, int]]:
    """(config, slice, rows a step), what the project promises first."""
    chips = {"v5p:16x16x16": 4096}
    found = [(c, s, n) for s in ("v5e:4x4", "v5e:16x16") for c, n in PUBLISHED.items()]
    found += [(c, "v5e:16x16", 256) for c in ONE_ROW]
    return found + [(c, s, max(PUBLISHED[c], chips.get(s, 1))) for s in MORE for c in PLOTTED]


def compile_all() -> None:
    from bert_jax.utils.platform import without_tpu_env

    without_tpu_env()
    known = steps.read(DATA)
    for name, topology, rows in cases():
        if not any(_key(c) == (name, topology, rows) for c in known):
            known.append(compiled(name, topology, rows) | steps.made())
            steps.keep(DATA, known)


def compiled(name: str, topology: str, rows: int) -> dict[str, Any]:
    """One case: bfloat16, attention as `auto` chooses, the micro-batch halved until it fits."""
    from bert_jax.config import from_python_file, replace
    from bert_jax.perf.plan import plan, topologies

    chips = len(topologies.describe_topology(topology).devices)
    most = MICRO[topology.partition(":")[0]] // (2 if name == "albert_xxlarge" else 1)
    at_once = min(rows // chips, most)
    while at_once:
        config = replace(
            from_python_file(str(ROOT / "configs" / f"{name}.py")),
            data=dict(batch_size=rows),
            optim=dict(accumulate=rows // chips // at_once),
            run=dict(dtype="bfloat16"),
        )
        found = plan(config, [topology], say=lambda x: print(name, x, flush=True))
        one = found["slices"][0]
        print(name, topology, rows, at_once, one["fits"], one["bytes"], flush=True)
        if one["fits"]:
            return {"config": name, "batch_size": rows, "length": found["length"], **one}
        at_once //= 2
    return {"config": name, "batch_size": rows, **one}


def _key(case: dict[str, Any]) -> tuple[str, str, int]:
    return case["config"], case["topology"], case["batch_size"]


# ---- by formula


def ring(size: float, chips: int) -> float:
    """Bytes that each chip sends at the least to sum `size` over so many."""
    return 2 * size * (chips - 1) / chips


def seconds(size: float, chips: int, chip: Any) -> float:
    """A sum over chips: within slices or nodes by their links, each chip's share of it beyond
    them by the network."""
    near = min(chips, chip.together)
    time = ring(size, near) / chip.links
    if chips > near:
        time += ring(size / near, chips // near) / chip.network
    return time


def by_formula(name: str, known: list[dict[str, Any]], chips: int, chip: Any) -> dict[str, Any]:
    """Arithmetic goes with rows, messages with the gradient, and what is held lies on the line
    through the steps compiled for v5e, over the rows that a chip has at once."""
    points = [c for c in known if c["config"] == name and c["fits"] and "v5e" in c["topology"]]
    rows = max(PUBLISHED[name], chips)
    each = rows // chips
    held = {int(c["rows_per_chip"] / c["accumulate"]): c["bytes"] for c in points}
    most, least = max(held), min(held)
    at_once = min(each, most)
    state = points[0]["state_bytes"]
    base, low = (held[least], least) if most > least else (state, 0)
    slope = (held[most] - base) / (most - low)
    size = points[0]["collectives"]["all-reduce"]
    flops = min(c["flops"] / c["rows_per_chip"] for c in points) * each
    return {
        "topology": f"{chip.name} x {chips}",
        "chips": chips,
        "batch_size": rows,
        "rows_per_chip": each,
        "accumulate": each // at_once,
        "bytes": base + slope * (at_once - low),
        "sent": ring(size, chips),
        "compute": flops / chip.flops,
        "interconnect": seconds(size, chips, chip),
        "formula": True,
    }


def lines(name: str, known: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Everything of one config, compiled or not, by chip and number."""
    from bert_jax.perf.hardware import CHIPS, H100

    some = [c for c in known if c["config"] == name and c["fits"]]
    some = [c for c in some if c["batch_size"] == max(PUBLISHED[name], c["chips"])]
    if not some:
        return []
    found = [{**c, **c["bound"], "formula": False} for c in some]
    have = {c["chips"] for c in some if c["topology"].startswith("v5e")}
    for n in NUMBERS:
        found += [] if n in have else [by_formula(name, known, n, CHIPS["v5e"])]
        found.append(by_formula(name, known, n, H100))
    order = ("v5e", "v5p", "v6e", "H10")
    return sorted(found, key=lambda c: (order.index(c["topology"][:3]), c["chips"]))


# ---- the page


def table(known: list[dict[str, Any]]) -> str:
    text = []
    for name in PLOTTED:
        text += [f"### {name}", ""]
        text.append(
            "| chips | rows a step | rows a chip | GiB held | MB sent | compute ms | memory ms | "
            "interconnect ms | binds |"
        )
        text.append("|---|---:|---:|---:|---:|---:|---:|---:|---|")
        text += [_row(c) for c in lines(name, known)]
        text.append("")
    text += ["### All published batches", ""]
    text.append(
        "| config | slice | rows a chip | GiB held | state GiB | TFLOP | bound ms | binds |"
    )
    text.append("|---|---|---:|---:|---:|---:|---:|---|")
    for c in sorted(known, key=lambda c: (c["config"], c["chips"])):
        if c["topology"] in ("v5e:4x4", "v5e:16x16") and c["batch_size"] == PUBLISHED[c["config"]]:
            text.append(_published(c))
    return "\n".join(text)


def _row(c: dict[str, Any]) -> str:
    memory = f"{c['memory'] * 1e3:.1f}" if "binds" in c and not c["formula"] else "-"
    longest = max(("compute", "interconnect"), key=lambda k: c[k])
    mark = " (formula)" if c["formula"] else ""
    return (
        f"| {c['topology']}{mark} | {c['batch_size']} | {_rows(c)} | {c['bytes'] / 2**30:.1f} | "
        f"{c['sent'] / 1e6:.0f} | {c['compute'] * 1e3:.1f} | {memory} | "
        f"{c['interconnect'] * 1e3:.1f} | {c.get('binds', longest)} |"
    )


def _rows(c: dict[str, Any]) -> str:
    n = int(c["rows_per_chip"])
    return f"{n}" if c["accumulate"] == 1 else f"{c['accumulate']} x {n // c['accumulate']}"


def _published(c: dict[str, Any]) -> str:
    head = f"| {c['config']} | {c['topology']} | {_rows(c)} | {c['bytes'] / 2**30:.1f} | "
    if not c["fits"]:
        return head + f"{c['state_bytes'] / 2**30:.1f} | | does not fit | |"
    b = c["bound"]
    return head + (
        f"{c['state_bytes'] / 2**30:.1f} | {c['flops'] / 1e12:.1f} | {b['seconds'] * 1e3:.1f} | "
        f"{b['binds']} |"
    )


def plot(known: list[dict[str, Any]]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(PLOTTED), figsize=(13, 4), sharey=True)
    for axis, name in zip(axes, PLOTTED, strict=True):
        for chip, colour in (("v5e", "tab:blue"), ("H100", "tab:green")):
            some = [c for c in lines(name, known) if c["topology"].startswith(chip)]
            for part, style in (("compute", "-"), ("interconnect", "--")):
                points = [(c["chips"], c[part] * 1e3) for c in some if c[part] > 0]
                axis.plot(*zip(*points, strict=True), style, color=colour, label=f"{chip} {part}")
                real = [(c["chips"], c[part] * 1e3) for c in some if not c["formula"] and c[part]]
                if real:
                    axis.plot(*zip(*real, strict=True), "o", color=colour)
        axis.set(xscale="log", yscale="log", xlabel="chips", title=name)
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("least time of a step, ms")
    axes[0].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(PLOT, dpi=110)


def page() -> None:
    known = steps.read(DATA)
    head = f"Compiled {steps.origins(known)}; {DATA.name} says which.\n"
    steps.fill(PAGE, BEGIN, END, f"{head}\n{table(known)}")
    plot(known)


if __name__ == "__main__":
    {"compile": compile_all, "page": page}[sys.argv[1]]()
