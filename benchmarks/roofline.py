"""What binds a train step on a TPU v5e chip, with plain and with flash attention: the roofline of
docs/performance.md, from steps that `plan` compiles.

    python benchmarks/roofline.py compile    # what is not in docs/roofline.json yet; a minute each
    python benchmarks/roofline.py page       # the table from it

Every time is a bound from published figures, not a measurement.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import compiled_steps as steps

ROOT = Path(__file__).parents[1]
DATA, PAGE = ROOT / "docs" / "roofline.json", ROOT / "docs" / "performance.md"
BEGIN, END = "<!-- table: benchmarks/roofline.py page -->", "<!-- end of roofline -->"

CHIP = "v5e:1x1"
TOKENS = 8192  # of a step on the chip; halved where the step does not fit with either attention
CASES = (
    *(("bert_large", 512), ("bert_large", 128), ("bert_base", 512), ("bert_base", 128)),
    *(("electra_small", 512), ("electra_base", 512), ("albert_base", 512)),
    *(("albert_xxlarge", 512), ("modern_base", 512)),
)
ATTENTION = {"plain": "xla", "flash": "auto"}  # as the table says it -> run.attention


def compile_all() -> None:
    from bert_jax.utils.platform import without_tpu_env

    without_tpu_env()
    known = steps.read(DATA)
    for name, length in CASES:
        if not any((c["config"], c["length"]) == (name, length) for c in known):
            case = {"config": name, "length": length, **steps.made()}
            known.append({**case, **both(name, length)})
            steps.keep(DATA, known)


def both(name: str, length: int) -> dict[str, Any]:
    """The step with either attention, on as many rows as fit with both."""
    rows = TOKENS // length
    while True:
        found = {says: compiled(name, length, rows, asked) for says, asked in ATTENTION.items()}
        print(name, length, rows, {k: v["fits"] for k, v in found.items()}, flush=True)
        if rows == 1 or all(one["fits"] for one in found.values()):
            return {"rows": rows, **found}
        rows //= 2


def compiled(name: str, length: int, rows: int, attention: str) -> dict[str, Any]:
    from bert_jax.config import from_python_file, replace
    from bert_jax.perf.plan import plan

    config = from_python_file(str(ROOT / "configs" / f"{name}.py"))
    most = max(config.encoder.max_length, length)
    config = replace(
        config,
        encoder=dict(max_length=most),
        data=dict(batch_size=rows, length=length, stages=None),
        optim=dict(accumulate=1),
        run=dict(dtype="bfloat16", attention=attention),
    )
    return plan(config, [CHIP])["slices"][0]


HEAD = (
    "| model | rows x length | attention | TFLOP | GB moved | GiB held | compute ms | memory ms | "
    "binds | of the peak at most |\n|---|---|---|---:|---:|---:|---:|---:|---|---:|"
)


def row(case: dict[str, Any], says: str) -> str:
    one = case[says]
    first = f"| {case['config']} | {case['rows']} x {case['length']} | {says} | "
    held = f"{one['bytes'] / 2**30:.1f}"
    if not one["fits"]:
        return first + f"| | {held} | | | does not fit | |"
    b = one["bound"]
    return first + (
        f"{one['flops'] / 1e12:.2f} | {one['traffic'] / 1e9:.1f} | {held} | "
        f"{b['compute'] * 1e3:.1f} | {b['memory'] * 1e3:.1f} | {b['binds']} | "
        f"{one['utilisation']:.0%} |"
    )


def page() -> None:
    known = steps.read(DATA)
    rows = [row(case, says) for case in known for says in ATTENTION]
    table = "\n".join([f"Compiled {steps.origins(known)}.", "", HEAD, *rows])
    steps.fill(PAGE, BEGIN, END, table)


if __name__ == "__main__":
    {"compile": compile_all, "page": page}[sys.argv[1]]()
