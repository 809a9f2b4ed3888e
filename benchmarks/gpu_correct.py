"""Check on a GPU that what was only compiled and interpreted computes the right numbers.

    python benchmarks/gpu_correct.py --out correct.jsonl [--tiny] [--together 4]

Rows, each written as soon as it is known, so that a time limit loses nothing; rows that are there
are not made again:

    attention   each backend in bfloat16 against plain attention in float32: padded, packed,
                windowed and full rows, with and without dropout, outputs and gradients. Memory is
                first filled with NaN. `error` is the norm of the difference over the norm.
    training    200 steps of each family's tiny config in bfloat16: skipped updates (expected 0),
                and the first and the last loss

`--together 4` shares the rows among four processes. With `--turns FOLDER` it runs beside
speed_table.py, which times nothing before its last row. Exit status 1 if a row fails. Dropout is
compared with plain attention given the kernel's own mask, which is read off its output for one-hot
values.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from gpu_rows import add_row, read_rows, run_parts
from gpu_turns import Turns

from bert_jax.config import from_python_file, replace
from bert_jax.model.attention import BACKENDS, flash_gpu, kernel_check
from bert_jax.perf.bench.inputs import open_inputs
from bert_jax.perf.bench.train_step import BertJax
from bert_jax.training.step import to_floats

ROOT = Path(__file__).parents[1]
FAMILIES = ("bert", "albert", "roberta", "electra", "spanbert")
RATE = 0.1


def attention_rows(tiny: bool) -> Iterator[tuple[str, Any]]:
    # first those at which faults are known: 64 beyond a multiple of 128, and no multiple of 64
    for length in (64,) if tiny else (192, 500, 1024, 512, 128, 64):
        for kind in ("full", "padded", "packed"):
            for window in (None, 17):
                for backend, rate in (("cudnn", 0.0), ("flash", 0.0), ("flash", RATE)):
                    name = f"attention {backend} {length} {kind} window {window} dropout {rate}"
                    yield name, partial(check_attention, backend, length, kind, window, rate)


def check_attention(
    backend: str, length: int, kind: str, window: int | None, rate: float
) -> dict[str, Any]:
    on_gpu = jax.default_backend() == "gpu"
    if backend == "cudnn" and not on_gpu:
        return {"skipped": "cuDNN needs a GPU"}
    attend = flash_gpu.attend if backend == "flash" else BACKENDS[backend]
    heads, width = (4, 64) if on_gpu else (2, 16)
    mask = kernel_check.example_mask(kind, 4, length)
    error = kernel_check.kernel_error(attend, width, heads, mask, rate, window)
    return {"error": min(error, 1e9), "ok": error < kernel_check.TOLERANCE}


def training_rows(tiny: bool) -> Iterator[tuple[str, Any]]:
    for family in FAMILIES[: 1 if tiny else None]:
        for attention in ("auto", "xla"):
            name = f"training {family} {attention}"
            yield name, partial(check_training, family, attention, 4 if tiny else 200)


def check_training(family: str, attention: str, steps: int) -> dict[str, Any]:
    config = from_python_file(str(ROOT / "configs" / f"tiny_{family}.py"))
    config = replace(
        config,
        encoder=dict(hidden_size=128, heads=2),
        data=dict(batch_size=16, length=128),
        run=dict(dtype="bfloat16", attention=attention),
    )
    with ExitStack() as stack:
        contender = BertJax(open_inputs(config, None, stack), jax.devices()[:1])
        contender.compile()
        losses, skipped = [], 0.0
        for _ in range(steps):
            contender.step()
            metrics = to_floats(contender._metrics)
            losses.append(metrics["loss"])
            skipped = metrics["skipped"]  # so far
    finite = bool(np.isfinite(losses).all())
    return {
        "first": losses[0], "last": losses[-1], "skipped": skipped,
        "ok": finite and not skipped and losses[-1] < losses[0] + 0.1,
    }  # fmt: skip


def fill_memory_with_nan() -> None:
    """Fresh memory is mostly zero, which would hide what a kernel does not write."""
    x = jnp.full(2**28 if jax.default_backend() == "gpu" else 2**20, jnp.nan)
    jax.block_until_ready(x)


def check_rows(out: Path, tiny: bool, only: list[str], part: int, parts: int) -> None:
    """Add every row of this part that is not there."""
    done, device = read_rows(out), jax.devices()[0].device_kind
    rows = [*training_rows(tiny), *attention_rows(tiny)]
    rows = [row for row in rows if not only or any(words in row[0] for words in only)]
    for name, check in rows[part::parts]:
        if name in done:
            continue
        fill_memory_with_nan()
        try:
            row = check()
        except Exception as e:  # one row's failure must not hide the others
            row = {"ok": False, "failure": f"{type(e).__name__}: {str(e)[:300]}"}
        row = {"name": name, **row, "device": device, "jax": jax.__version__}
        add_row(out, row)
        print(json.dumps(row), flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--tiny", action="store_true", help="a few small rows, also on a CPU")
    parser.add_argument("--only", nargs="+", default=[], help="words in the name of a row")
    parser.add_argument("--together", type=int, default=1, help="processes")
    parser.add_argument("--turns", type=Path, help="folder of locks, shared with other programs")
    parser.add_argument("--part", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.part is not None or args.together == 1:
        with Turns(args.turns).preparing() if args.turns else nullcontext():
            check_rows(args.out, args.tiny, args.only, args.part or 0, args.together)
        if args.part is not None:
            return 0
    elif not run_parts(args.together):
        print("a process failed: run the same command again for its rows")
        return 1
    rows = read_rows(args.out)
    failed = [name for name, row in rows.items() if not row.get("ok", "skipped" in row)]
    print(f"{len(rows) - len(failed)} of {len(rows)} rows are right")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
