"""The table of models on this machine's accelerator, against PyTorch in the same runs.

    python benchmarks/speed_table.py --out table

writes table.jsonl (everything that `bert-jax bench --json` says of each cell, as it comes) and
table.md. Each cell is a process of its own, so that none finds memory taken; cells that
table.jsonl already holds are not measured again, and one that fails is written down as such. On a
GPU computation is in bfloat16, on the CPU in float32. `--only bert_large --length 512` picks
cells, `--tiny` measures the tiny configs, to see that everything works.

ELECTRA has two lines: its own objective, with both towers, and the masked language model of its
discriminator, which is what stands against PyTorch.
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
# rows of 128 and of 512 tokens, for 80 GB and more
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
    asked = ["--batch-size", str(cell.rows), "--length", str(cell.length), "--steps", str(steps)]
    if cell.against:
        asked += ["--against", "transformers", *([] if compile else ["--no-compile"])]
    asked += ["--run.dtype", "bfloat16"] if bf16 else []
    config = str(ROOT / "configs" / f"{cell.model}.py")
    return [sys.executable, "-m", "bert_jax", "bench", config, *asked, "--json"]


def measure(cell: Cell, steps: int, bf16: bool, compile: bool, limit: float) -> dict[str, Any]:
    """What `bench` says of a cell; or `error`, its last line."""
    try:
        done = subprocess.run(
            command(cell, steps, bf16, compile),
            check=False,
            capture_output=True,
            text=True,
            timeout=limit,
            cwd=ROOT,
        )
    except subprocess.TimeoutExpired:
        return {"error": f"not done after {limit:.0f} s"}
    if done.returncode:
        return {"error": (done.stderr.strip().splitlines() or ["?"])[-1]}
    return json.loads(done.stdout.strip().splitlines()[-1])


HEAD = (
    *("model", "objective", "rows x length", "tokens/s", "utilisation", "step memory, GiB"),
    *("ratio to PyTorch", "to its stock class"),
)


def line(cell: Cell, found: dict[str, Any]) -> list[str]:
    """A cell's row of the table."""
    shape = f"{cell.rows} x {cell.length}"
    if "error" in found:
        return [cell.model, f"failed: {found['error']}", shape, *[""] * (len(HEAD) - 3)]
    ratios = [f"{found[r]:.2f}" if r in found else "" for r in ("ratio", "ratio_stock")]
    objective = "masked" if found["objective"] == "Masked" else "replaced tokens"
    return [
        *(cell.model, objective, shape, f"{found['tokens_per_second']:,.0f}"),
        *(f"{found['utilisation']:.1%}", f"{found['memory']['peak'] / 2**30:.1f}", *ratios),
    ]


def render(results: Sequence[tuple[Cell, dict[str, Any]]], called: str) -> str:
    """The table in Markdown, with what it was measured on."""
    of = next((found for _, found in results if "error" not in found), None)
    lines = ["| " + " | ".join(HEAD) + " |", "|---" * len(HEAD) + "|"]
    lines += ["| " + " | ".join(line(*result)) + " |" for result in results]
    if of is not None:
        peer = next((f["against"] for _, f in results if "against" in f), None)
        versions = f", torch {peer['torch']}, transformers {peer['transformers']}" if peer else ""
        peak = f"{of['peak']} peak {of['peak_flops'] / 1e12:.3g} TFLOP/s"
        lines += ["", f"{of['device']}, {of['dtype']}, {peak}; jax {of['jax']}{versions}; "]
        lines[-1] += f"{of['date'][:10]}; `{called}`"
    return "\n".join(lines) + "\n"


def accelerator() -> str:
    """gpu, tpu or cpu, asked of a process that ends: this one takes no memory."""
    code = "import jax; print(jax.default_backend())"
    return subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout.split()[-1]


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="without its ending")
    parser.add_argument("--only", nargs="+", help="models")
    parser.add_argument("--length", type=int)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--scale", type=float, default=1.0, help="of the batches")
    parser.add_argument("--limit", type=float, default=600, help="seconds for a cell")
    parser.add_argument("--no-compile", action="store_true")
    parser.add_argument("--tiny", action="store_true")
    args = parser.parse_args(argv)
    bf16 = not args.tiny and accelerator() != "cpu"
    log = args.out.with_suffix(".jsonl")
    known = [json.loads(text) for text in log.read_text().splitlines()] if log.exists() else []
    results = [(Cell(*k.pop("cell")), k) for k in known]
    for cell in cells(args.tiny, args.scale):
        picked = args.only is None or cell.model in args.only
        if not picked or args.length not in (None, cell.length) or cell in dict(results):
            continue
        print(cell.name, flush=True)
        compile = not (args.no_compile or args.tiny)
        found = measure(cell, args.steps, bf16, compile, args.limit)
        results.append((cell, found))
        with log.open("a") as f:
            f.write(json.dumps({"cell": cell, **found}) + "\n")
        called = "python benchmarks/speed_table.py " + " ".join(argv or sys.argv[1:])
        args.out.with_suffix(".md").write_text(render(results, called))
    print(args.out.with_suffix(".md"))


if __name__ == "__main__":
    main()
