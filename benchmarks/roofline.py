"""Estimate what limits a train step on one TPU v5e or one H100: the rooflines of
docs/performance.md.

    python benchmarks/roofline.py compile        # add missing steps to docs/roofline.json
    python benchmarks/roofline.py compile-gpu    # to docs/roofline_gpu.json
    python benchmarks/roofline.py page           # write the tables from them

`plan` compiles the steps, with each kind of attention. Every time is a bound from published
hardware figures, not a measurement.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from compiled_steps import (
    date_and_versions,
    format_versions,
    read_cases,
    replace_table,
    run_command,
    write_cases,
)

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "performance.md"

CASES = (
    *(("bert_large", 512), ("bert_large", 128), ("bert_base", 512), ("bert_base", 128)),
    *(("electra_small", 512), ("electra_base", 512), ("albert_base", 512)),
    *(("albert_xxlarge", 512), ("modern_base", 512), ("roberta_base", 512), ("spanbert_base", 512)),
)
Fields = dict[str, Any]


class Roofline(NamedTuple):
    """One table: a chip, and the kinds of attention that are compiled for it."""

    chip: str
    package: str  # that compiles
    tokens: int  # per step; halved until the step fits with every kind of attention
    data: Path
    begin: str  # marks of the table in the page
    end: str
    attention: dict[str, Fields]  # name in the table -> config fields


TPU = Roofline(
    *("v5e:1x1", "libtpu", 8192, ROOT / "docs" / "roofline.json"),
    *("<!-- table: benchmarks/roofline.py page -->", "<!-- end of roofline -->"),
    {"plain": {"run": {"attention": "xla"}}, "flash": {"run": {"attention": "auto"}}},
)
GPU = Roofline(
    *("h100:1", "jax-cuda13-plugin", 32768, ROOT / "docs" / "roofline_gpu.json"),
    *("<!-- table: benchmarks/roofline.py page, GPU -->", "<!-- end of GPU roofline -->"),
    {
        "plain": {"run": {"attention": "xla"}},
        "flash": {"run": {"attention": "flash"}},
        "cuDNN, no dropout in attention": {
            "run": {"attention": "cudnn"},
            "encoder": {"attention_dropout": 0.0},
        },
    },
)


def compile_all(roofline: Roofline) -> None:
    from bert_jax.utils.platform import without_tpu_env

    without_tpu_env()
    cases = read_cases(roofline.data)
    for name, length in CASES:
        if not any((c["config"], c["length"]) == (name, length) for c in cases):
            case = {"config": name, "length": length, **date_and_versions(roofline.package)}
            cases.append({**case, **compile_kinds(roofline, name, length)})
            write_cases(roofline.data, cases)


def compile_kinds(roofline: Roofline, name: str, length: int) -> dict[str, Any]:
    """The step with each kind of attention, on as many rows as fit with all of them."""
    rows = roofline.tokens // length
    while True:
        plans = {}
        for kind, fields in roofline.attention.items():
            plans[kind] = compile_step(roofline.chip, name, length, rows, fields)
            print(name, length, rows, kind, plans[kind]["fits"], flush=True)
            if rows > 1 and not plans[kind]["fits"]:
                break
        else:
            return {"rows": rows, **plans}
        rows //= 2


def compile_step(chip: str, name: str, length: int, rows: int, fields: Fields) -> dict[str, Any]:
    from bert_jax.config import from_python_file, replace
    from bert_jax.perf.plan import plan

    config = from_python_file(str(ROOT / "configs" / f"{name}.py"))
    max_length = max(config.encoder.max_length, length)
    config = replace(
        config,
        encoder=dict(max_length=max_length),
        data=dict(batch_size=rows, length=length, stages=None),
        optim=dict(accumulate=1),
        run=dict(dtype="bfloat16"),
    )
    return plan(replace(config, **fields), [chip])["slices"][0]


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
    for roofline in (TPU, GPU):
        cases = read_cases(roofline.data)
        rows = [format_row(case, kind) for case in cases for kind in roofline.attention]
        table = "\n".join([f"Compiled {format_versions(cases)}.", "", HEAD, *rows])
        replace_table(PAGE, roofline.begin, roofline.end, table)


if __name__ == "__main__":
    commands = {
        "compile": partial(compile_all, TPU),
        "compile-gpu": partial(compile_all, GPU),
        "page": write_page,
    }
    run_command(__doc__, commands)
