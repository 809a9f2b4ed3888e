"""Measure all models on this machine's accelerator, against PyTorch in the same runs.

    python benchmarks/speed_table.py --out table

Writes table.jsonl (the output of `bert-jax bench --json` for each cell) and table.md. Each cell is
a process of its own, so that all memory is free. Cells in table.jsonl are not measured again;
failed cells are recorded. Computation is in bfloat16 on a GPU and in float32 on the CPU.
`--only bert_large --length 512` selects cells, `--tiny` measures the tiny configs as a quick check.

ELECTRA has two lines: its own objective, with generator and discriminator, and the masked language
model of its discriminator, which is compared with PyTorch.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
# batch sizes at length 128 and 512, for at least 80 GB
ROWS = {
    "bert_base": (1024, 256),
    "bert_large": (512, 128),
    "electra_small": (2048, 512),
    "electra_base": (768, 192),
    "albert_base": (1024, 256),
    "albert_xxlarge": (96, 24),
    "modern_base": (1024, 256),
}


class Cell(NamedTuple):
    """One line of the table."""

    model: str
    length: int
    rows: int
    against: bool

    @property
    def name(self) -> str:
        return f"{self.model} {self.length} x {self.rows}" + (" against" if self.against else "")


def cells(tiny: bool, scale: float) -> Iterator[Cell]:
    if tiny:
        yield from (Cell("tiny_bert", 32, 4, True), Cell("tiny_electra", 32, 4, False))
        return
    for model, rows in ROWS.items():
        for length, n in zip((128, 512), rows, strict=True):
            n = max(8, int(n * scale) // 8 * 8)
            if model.startswith("electra"):
                yield Cell(model, length, n, False)
            yield Cell(model, length, n, True)


def command(cell: Cell, steps: int, bf16: bool, compile: bool) -> list[str]:
    options = ["--batch-size", str(cell.rows), "--length", str(cell.length), "--steps", str(steps)]
    if cell.against:
        options += ["--against", "transformers", *([] if compile else ["--no-compile"])]
    options += ["--run.dtype", "bfloat16"] if bf16 else []
    config = str(ROOT / "configs" / f"{cell.model}.py")
    return [sys.executable, "-m", "bert_jax", "bench", config, *options, "--json"]


def measure(cell: Cell, steps: int, bf16: bool, compile: bool, limit: float) -> dict[str, Any]:
    """The output of `bench` for a cell, or its last line as `error`."""
    try:
        result = subprocess.run(
            command(cell, steps, bf16, compile),
            check=False,
            capture_output=True,
            text=True,
            timeout=limit,
            cwd=ROOT,
        )
    except subprocess.TimeoutExpired:
        return {"error": f"timeout after {limit:.0f} s"}
    if result.returncode:
        return {"error": (result.stderr.strip().splitlines() or ["?"])[-1]}
    return json.loads(result.stdout.strip().splitlines()[-1])


HEAD = (
    *("model", "objective", "rows x length", "tokens/s", "utilisation", "step memory, GiB"),
    *("ratio to PyTorch", "to its stock class"),
)


def format_row(cell: Cell, result: dict[str, Any]) -> list[str]:
    """A cell's row of the table."""
    shape = f"{cell.rows} x {cell.length}"
    if "error" in result:
        return [cell.model, f"failed: {result['error']}", shape, *[""] * (len(HEAD) - 3)]
    ratios = [f"{result[r]:.2f}" if r in result else "" for r in ("ratio", "ratio_stock")]
    objective = "masked" if result["objective"] == "Masked" else "replaced tokens"
    return [
        *(cell.model, objective, shape, f"{result['tokens_per_second']:,.0f}"),
        *(f"{result['utilisation']:.1%}", f"{result['memory']['peak'] / 2**30:.1f}", *ratios),
    ]


def format_table(results: Sequence[tuple[Cell, dict[str, Any]]], command_line: str) -> str:
    """The table in Markdown, with what it was measured on."""
    measured = next((result for _, result in results if "error" not in result), None)
    lines = ["| " + " | ".join(HEAD) + " |", "|---" * len(HEAD) + "|"]
    lines += ["| " + " | ".join(format_row(*result)) + " |" for result in results]
    if measured is not None:
        peer = next((f["against"] for _, f in results if "against" in f), None)
        versions = f", torch {peer['torch']}, transformers {peer['transformers']}" if peer else ""
        peak = f"{measured['peak']} peak {measured['peak_flops'] / 1e12:.3g} TFLOP/s"
        lines += [
            "",
            f"{measured['device']}, {measured['dtype']}, {peak}; jax {measured['jax']}{versions}; ",
        ]
        lines[-1] += f"{measured['date'][:10]}; `{command_line}`"
    return "\n".join(lines) + "\n"


def accelerator() -> str:
    """gpu, tpu or cpu, from another process: this one takes no device memory."""
    code = "import jax; print(jax.default_backend())"
    return subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout.split()[-1]


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="path without its extension")
    parser.add_argument("--only", nargs="+", help="models")
    parser.add_argument("--length", type=int)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--scale", type=float, default=1.0, help="factor of the batch sizes")
    parser.add_argument("--limit", type=float, default=600, help="seconds per cell")
    parser.add_argument("--no-compile", action="store_true")
    parser.add_argument("--tiny", action="store_true")
    args = parser.parse_args(argv)
    bf16 = not args.tiny and accelerator() != "cpu"
    log = args.out.with_suffix(".jsonl")
    stored = [json.loads(text) for text in log.read_text().splitlines()] if log.exists() else []
    results = [(Cell(*result.pop("cell")), result) for result in stored]
    for cell in cells(args.tiny, args.scale):
        selected = args.only is None or cell.model in args.only
        if not selected or args.length not in (None, cell.length) or cell in dict(results):
            continue
        print(cell.name, flush=True)
        compile = not (args.no_compile or args.tiny)
        result = measure(cell, args.steps, bf16, compile, args.limit)
        results.append((cell, result))
        with log.open("a") as f:
            f.write(json.dumps({"cell": cell, **result}) + "\n")
        command_line = "python benchmarks/speed_table.py " + " ".join(argv or sys.argv[1:])
        args.out.with_suffix(".md").write_text(format_table(results, command_line))
    print(args.out.with_suffix(".md"))


if __name__ == "__main__":
    main()
