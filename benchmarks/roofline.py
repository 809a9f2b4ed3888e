"""Estimate what limits a train step on a TPU v5e chip: the roofline of docs/performance.md.

    python benchmarks/roofline.py compile    # add missing steps to docs/roofline.json
    python benchmarks/roofline.py page       # write the table from it

`plan` compiles the steps, with plain and with flash attention. Every time is a bound from published
hardware figures, not a measurement.
"""

from __future__ import annotations

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
DATA, PAGE = ROOT / "docs" / "roofline.json", ROOT / "docs" / "performance.md"
BEGIN, END = "<!-- table: benchmarks/roofline.py page -->", "<!-- end of roofline -->"

CHIP = "v5e:1x1"
TOKENS = 8192  # per step; halved until the step fits with both kinds of attention
CASES = (
    *(("bert_large", 512), ("bert_large", 128), ("bert_base", 512), ("bert_base", 128)),
    *(("electra_small", 512), ("electra_base", 512), ("albert_base", 512)),
    *(("albert_xxlarge", 512), ("modern_base", 512)),
)
ATTENTION = {"plain": "xla", "flash": "auto"}  # name in the table -> run.attention


def compile_all() -> None:
    from bert_jax.utils.platform import without_tpu_env

    without_tpu_env()
    cases = read_cases(DATA)
    for name, length in CASES:
        if not any((c["config"], c["length"]) == (name, length) for c in cases):
            case = {"config": name, "length": length, **date_and_versions()}
            cases.append({**case, **compile_both(name, length)})
            write_cases(DATA, cases)


def compile_both(name: str, length: int) -> dict[str, Any]:
    """The step with each kind of attention, on as many rows as fit with both."""
    rows = TOKENS // length
    while True:
        plans = {k: compile_step(name, length, rows, v) for k, v in ATTENTION.items()}
        print(name, length, rows, {k: v["fits"] for k, v in plans.items()}, flush=True)
        if rows == 1 or all(p["fits"] for p in plans.values()):
            return {"rows": rows, **plans}
        rows //= 2


def compile_step(name: str, length: int, rows: int, attention: str) -> dict[str, Any]:
    from bert_jax.config import from_python_file, replace
    from bert_jax.perf.plan import plan

    config = from_python_file(str(ROOT / "configs" / f"{name}.py"))
    max_length = max(config.encoder.max_length, length)
    config = replace(
        config,
        encoder=dict(max_length=max_length),
        data=dict(batch_size=rows, length=length, stages=None),
        optim=dict(accumulate=1),
        run=dict(dtype="bfloat16", attention=attention),
    )
    return plan(config, [CHIP])["slices"][0]


HEAD = (
    "| model | rows x length | attention | TFLOP | GB moved | GiB held | compute ms | memory ms | "
    "bottleneck | of the peak at most |\n|---|---|---|---:|---:|---:|---:|---:|---|---:|"
)


def format_row(case: dict[str, Any], attention: str) -> str:
    plan = case[attention]
    start = f"| {case['config']} | {case['rows']} x {case['length']} | {attention} | "
    memory = f"{plan['bytes'] / 2**30:.1f}"
    if not plan["fits"]:
        return start + f"| | {memory} | | | does not fit | |"
    b = plan["bound"]
    return start + (
        f"{plan['flops'] / 1e12:.2f} | {plan['traffic'] / 1e9:.1f} | {memory} | "
        f"{b['compute'] * 1e3:.1f} | {b['memory'] * 1e3:.1f} | {b['binds']} | "
        f"{plan['utilisation']:.0%} |"
    )


def write_page() -> None:
    cases = read_cases(DATA)
    rows = [format_row(case, attention) for case in cases for attention in ATTENTION]
    table = "\n".join([f"Compiled {format_versions(cases)}.", "", HEAD, *rows])
    replace_table(PAGE, BEGIN, END, table)


if __name__ == "__main__":
    run_command(__doc__, {"compile": compile_all, "page": write_page})
