"""Measure all models on this machine's accelerator, against PyTorch in the same runs.

    python benchmarks/speed_table.py --out table

Writes table.jsonl (the output of `bert-jax bench --json` for each cell, and on a GPU the dearest
kernels) and table.md. Each cell is a process of its own, so that all memory is free. `--together 3`
compiles three cells side by side; each is timed alone. Cells in table.jsonl are not measured again;
failed cells are recorded. Computation is in bfloat16 on a GPU and in float32 on the CPU.
`--only bert_large --length 512` selects cells, `--tiny` measures the tiny configs as a quick check.

ELECTRA has two lines: its own objective, with generator and discriminator, and the masked language
model of its discriminator, which is compared with PyTorch. `least ms` is the bound of `plan`: the
traffic and the arithmetic of the step as compiled for an H100 (docs/roofline_gpu.json), at the
published rates of this device.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
START = time.perf_counter()
# Rows of 512 tokens, those of docs/roofline_gpu.json; of 128 tokens four times as many.
ROWS = {
    "bert_base": 64,
    "bert_large": 32,
    "electra_small": 64,
    "albert_base": 64,
    "electra_base": 64,
    "modern_base": 64,
    "albert_xxlarge": 16,
}
# Other settings of one row, without PyTorch
VARIANTS = {
    "plain attention": ["--run.attention", "xla"],
    "a loop over layers": ["--run.unroll", "1"],
    "no dropout in attention": ["--encoder.attention-dropout", "0"],
}


class Cell(NamedTuple):
    """One line of the table."""

    model: str
    length: int
    rows: int
    against: bool
    variant: str | None = None

    @property
    def name(self) -> str:
        kind = " against" if self.against else ""
        return f"{self.model} {self.length} x {self.rows}{kind} {self.variant or ''}".rstrip()


def cells(tiny: bool, scale: float) -> Iterator[Cell]:
    if tiny:
        yield from (Cell("tiny_bert", 32, 4, True), Cell("tiny_electra", 32, 4, False))
        return
    for length in (512, 128):
        for model, rows in ROWS.items():
            n = max(8, int(rows * scale * 512 / length) // 8 * 8)
            yield Cell(model, length, n, True)
            if model.startswith("electra"):
                yield Cell(model, length, n, False)
        if length == 512:
            for variant in VARIANTS:
                yield Cell("bert_base", 512, max(8, int(64 * scale) // 8 * 8), False, variant)


def fields(cell: Cell, bf16: bool) -> list[str]:
    """The fields of the config that a cell sets."""
    return [*(["--run.dtype", "bfloat16"] if bf16 else []), *VARIANTS.get(cell.variant or "", [])]


def run_cell(cell: Cell, fields: list[str], args: argparse.Namespace) -> None:
    """In a process of its own: print the JSON object of a cell."""
    import jax
    from gpu_turns import Turns
    from kernel_times import kernel_times

    from bert_jax.cli.configs import load_config
    from bert_jax.perf.bench import BenchOptions, measure, prepare
    from bert_jax.utils import malloc

    malloc.tune()  # as `bert-jax bench` does
    take, on_gpu = Turns(args.turns), jax.default_backend() == "gpu"
    config = load_config(str(ROOT / "configs" / f"{cell.model}.py"), fields, "bench")
    bench_options = BenchOptions(
        *(cell.rows, cell.length, args.steps, cell.against),
        compile=not (args.no_compile and cell.against),
        heads=("gathered",) if on_gpu else ("gathered", "stock"),
        eager=not on_gpu or args.no_compile,
    )
    with ExitStack() as stack:
        with take.preparing():
            prepared = prepare(config, bench_options, stack, log)
            log("compiled")
        with take.alone():
            result = measure(prepared, log)
            log("measured")
            if on_gpu:
                try:
                    ours = prepared.contender
                    result["kernels"] = kernel_times(ours.step, ours.wait)
                except Exception as e:  # the figures count more than the profile
                    result["kernels"] = {"failure": f"{type(e).__name__}: {e}"[:300]}
    print(json.dumps(result))


def log(text: str) -> None:
    seconds = time.perf_counter() - START
    print(f"{seconds:.1f} s: {text}", file=sys.stderr, flush=True)


def measure(cell: Cell, args: argparse.Namespace, bf16: bool, turns: Path) -> dict[str, Any]:
    """The output of `bench` for a cell, or its last line as `error`."""
    described = json.dumps({"cell": cell, "fields": fields(cell, bf16)})
    command = [sys.executable, __file__, "--cell", described, "--out", str(args.out)]
    command += ["--turns", str(turns)]
    command += ["--steps", str(args.steps), *(["--no-compile"] if args.no_compile else [])]
    env = os.environ | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}  # PyTorch takes its own
    name = cell.name.replace(" ", "_").replace(",", "")
    messages = args.out.with_name(f"{args.out.name}_{name}.log")
    with messages.open("w") as stderr:
        try:
            result = subprocess.run(
                command,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                timeout=args.limit,
                env=env,
            )
        except subprocess.TimeoutExpired:
            return {"error": f"timeout after {args.limit:.0f} s"}
    if result.returncode:
        return {"error": (messages.read_text().strip().splitlines() or ["?"])[-1]}
    return json.loads(result.stdout.strip().splitlines()[-1])


def least_seconds(cell: Cell, result: dict[str, Any]) -> float | None:
    """The bound of `plan` for the same step on this device; None if it was not compiled, or the
    device is another form of the chip (H100 PCIe). Sentence pairs are in BERT's bound alone, a
    small part; ELECTRA's masked language model has none."""
    from bert_jax.perf.hardware import GPUS, peak_flops

    peak = (peak_flops(result["device"]) or (None,))[0]
    same = (c for c in GPUS.values() if c.name in result["device"] and c.flops == peak)
    chip = next(same, None)
    kind = "cuDNN, no dropout in attention" if result["dropout"][1] == 0 else "flash"
    kind = "plain" if cell.variant == "plain attention" else kind
    other = cell.against and cell.model.startswith("electra")
    if chip is None or other or cell.variant == "a loop over layers":
        return None
    for case in json.loads((ROOT / "docs/roofline_gpu.json").read_text())["cases"]:
        if (case["config"], case["length"], case["rows"]) == (cell.model, cell.length, cell.rows):
            return max(case[kind]["flops"] / chip.flops, case[kind]["traffic"] / chip.bandwidth)
    return None


HEAD = (
    *("model", "objective", "rows x length", "ms per step", "least ms", "tokens/s", "utilization"),
    *("step memory, GiB", "ratio to PyTorch"),
)


def format_row(cell: Cell, result: dict[str, Any]) -> list[str]:
    """A cell's row of the table."""
    shape, model = f"{cell.rows} x {cell.length}", cell.model
    model += f", {cell.variant}" if cell.variant else ""
    if "error" in result:
        return [model, f"failed: {result['error']}", shape, *[""] * (len(HEAD) - 3)]
    objective = {"Masked": "masked", "ReplacedTokens": "replaced tokens"}[result["objective"]]
    objective += "" if cell.against else ", as published"
    least = least_seconds(cell, result)
    return [
        *(model, objective, shape, f"{result['step_seconds'] * 1e3:.1f}"),
        *(f"{least * 1e3:.1f}" if least else "", f"{result['tokens_per_second']:,.0f}"),
        *(f"{result['utilisation']:.1%}", f"{result['memory']['peak'] / 2**30:.1f}"),
        f"{result['ratio']:.2f}" if "ratio" in result else "",
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
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="path without its extension")
    parser.add_argument("--only", nargs="+", help="models")
    parser.add_argument("--length", type=int)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--scale", type=float, default=1.0, help="factor of the batch sizes")
    parser.add_argument("--limit", type=float, default=600, help="seconds per cell")
    parser.add_argument("--together", type=int, default=1, help="cells that compile side by side")
    parser.add_argument("--no-variants", action="store_true", help="the published settings alone")
    parser.add_argument("--no-peer", action="store_true", help="without the rows against PyTorch")
    parser.add_argument("--peer-only", action="store_true", help="the rows against PyTorch alone")
    parser.add_argument("--no-compile", action="store_true", help="PyTorch without torch.compile")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--turns", type=Path, help="folder of locks, shared with other programs")
    parser.add_argument("--cell", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.cell:
        given = json.loads(args.cell)
        run_cell(Cell(*given["cell"]), given["fields"], args)
        return
    args.no_compile |= args.tiny
    bf16 = not args.tiny and accelerator() != "cpu"
    log_file = args.out.with_suffix(".jsonl")
    stored = log_file.read_text().splitlines() if log_file.exists() else []
    results = [(Cell(*x.pop("cell")), x) for x in map(json.loads, stored)]
    command_line = "python benchmarks/speed_table.py " + " ".join(argv or sys.argv[1:])
    wanted = [
        cell
        for cell in cells(args.tiny, args.scale)
        if (args.only is None or cell.model in args.only)
        and args.length in (None, cell.length)
        and cell not in dict(results)
        and not (args.no_variants and cell.variant)
        and not (args.no_peer and cell.against)
        and not (args.peer_only and not cell.against)
    ]

    def add(cell: Cell, turns: Path) -> None:
        result = measure(cell, args, bf16, turns)
        results.append((cell, result))
        with log_file.open("a") as f:
            f.write(json.dumps({"cell": cell, **result}) + "\n")
        args.out.with_suffix(".md").write_text(format_table(results, command_line))
        print(cell.name, result.get("error", "measured"), flush=True)

    for start in range(0, len(wanted), args.together):
        group = wanted[start : start + args.together]
        with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(args.together) as pool:
            turns = args.turns or Path(folder)
            list(pool.map(add, group, [turns] * len(group)))
    print(args.out.with_suffix(".md"))


if __name__ == "__main__":
    main()
