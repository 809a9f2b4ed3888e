"""Time attention alone on a GPU, forward and backward: our kernel, cuDNN, plain, and PyTorch.

    python benchmarks/attention_speed.py --out attention.jsonl [--tiny]
    python benchmarks/attention_speed.py --out blocks.jsonl --blocks --together 8

One row per shape and way, in bfloat16; all are compiled, then timed one by one. `milliseconds` is
the median time of the output, or of the gradients of q k v with it, from arrays on the device.
`--blocks` times our kernels with other blocks, warps and stages instead.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from gpu_rows import add_row, read_rows, run_parts
from gpu_turns import Turns

from bert_jax.model.attention import BACKENDS, flash_gpu
from bert_jax.model.attention.mask import AttentionMask

SHAPES = {  # rows, heads, tokens, head width
    "bert_base 512": (64, 12, 512, 64),
    "bert_base 128": (256, 12, 128, 64),
    "bert_large 512": (32, 16, 512, 64),
}
RATE = 0.1
REPEATS, CALLS = 7, 10
CALLS_TO_TUNE = ("FORWARD", "KEY_GRADIENTS", "QUERY_GRADIENTS")


class Case(NamedTuple):
    """One row: `prepare` compiles a call, and gives it with the function that waits for it."""

    name: str
    prepare: Callable[[], tuple[Callable[[], Any], Callable[[Any], Any]]]


def median_seconds(call: Callable[[], Any], wait: Callable[[Any], Any]) -> float:
    """Of one call, in a queue of several."""
    wait(call())
    seconds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        results = [call() for _ in range(CALLS)]
        wait(results[-1])
        seconds.append((time.perf_counter() - start) / CALLS)
    return statistics.median(seconds)


def ours(attend: Callable[..., Any], shape: tuple[int, ...], rate: float, forward: bool) -> Any:
    b, h, length, width = shape
    keys = jax.random.split(jax.random.key(0), 5)
    arrays = [
        jax.random.normal(key, (b, length, h, width), jnp.bfloat16).swapaxes(1, 2)
        for key in keys[:4]
    ]
    mask = AttentionMask(jnp.ones((b, length), jnp.int32), packed=False)

    def output(q: jax.Array, k: jax.Array, v: jax.Array, _: jax.Array) -> jax.Array:
        return attend(q, k, v, mask, rate, keys[4] if rate else None, None)

    def loss(*qkvw: jax.Array) -> jax.Array:
        return jnp.sum(output(*qkvw).astype(jnp.float32) * qkvw[3])

    step = jax.jit(output if forward else jax.grad(loss, (0, 1, 2))).lower(*arrays).compile()
    return lambda: step(*arrays), jax.block_until_ready


def torchs(shape: tuple[int, ...], rate: float) -> Any:
    import torch
    import torch.nn.functional as F

    b, h, length, width = shape
    made = partial(torch.randn, device="cuda", dtype=torch.bfloat16)
    q, k, v, weight = (made(b, length, h, width).transpose(1, 2) for _ in range(4))
    for x in (q, k, v):
        x.requires_grad_()

    def step() -> Any:
        out = F.scaled_dot_product_attention(q, k, v, dropout_p=rate)
        return torch.autograd.grad(out, (q, k, v), weight)

    return step, lambda _: torch.cuda.synchronize()


def cases(shapes: dict[str, tuple[int, ...]]) -> Iterator[Case]:
    on_gpu = jax.default_backend() == "gpu"
    for name, shape in shapes.items():
        for rate in (0.0, RATE):
            for way, forward in itertools.product(("flash", "xla", "cudnn"), (False, True)):
                if way == "cudnn" and (rate or not on_gpu):
                    continue
                attend = flash_gpu.attend if way == "flash" else BACKENDS[way]
                kind = "forward" if forward else "with gradients"
                prepare = partial(ours, attend, shape, rate, forward)
                yield Case(f"{way} {name} dropout {rate} {kind}", prepare)
            if on_gpu:
                prepare = partial(torchs, shape, rate)
                yield Case(f"torch {name} dropout {rate} with gradients", prepare)


def block_cases(shapes: dict[str, tuple[int, ...]]) -> Iterator[Case]:
    """Our kernels with one call's blocks changed, the others as they are."""
    by_queries = ((64, 64), (128, 64), (64, 128), (128, 128), (64, 32), (128, 32))
    for shape_name, shape in shapes.items():
        for call in CALLS_TO_TUNE:
            is_by_queries = getattr(flash_gpu, call).by_queries
            sizes = by_queries if is_by_queries else tuple((k, q) for q, k in by_queries)
            for (queries, keys), warps, stages in itertools.product(sizes, (4, 8), (2, 3)):
                if warps == 8 and queries * keys < 64 * 128:
                    continue
                new = getattr(flash_gpu, call)._replace(
                    queries=queries, keys=keys, warps=warps, stages=stages
                )
                name = f"{call} {shape_name} {queries} x {keys}, {warps} warps, {stages} stages"
                yield Case(name, partial(with_call, call, new, shape))


def with_call(call: str, new: flash_gpu.Call, shape: tuple[int, ...]) -> Any:
    old = getattr(flash_gpu, call)
    setattr(flash_gpu, call, new)
    try:
        return ours(flash_gpu.attend, shape, RATE, call == "FORWARD")
    finally:
        setattr(flash_gpu, call, old)
        jax.clear_caches()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--blocks", action="store_true")
    parser.add_argument("--together", type=int, default=1, help="processes that compile")
    parser.add_argument("--tiny", action="store_true", help="a small shape, also on a CPU")
    parser.add_argument("--part", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--turns", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.together > 1 and args.turns is None:
        with tempfile.TemporaryDirectory() as turns:
            sys.exit(not run_parts(args.together, "--turns", turns))
    shapes = {"tiny": (2, 2, 64, 16)} if args.tiny else {name: SHAPES[name] for name in args.shapes}
    done = read_rows(args.out)
    wanted = [*(block_cases if args.blocks else cases)(shapes)][args.part :: args.together]
    wanted = [case for case in wanted if case.name not in done]
    with tempfile.TemporaryDirectory() as folder:
        take = Turns(args.turns or Path(folder))
        with take.preparing():
            calls = [attempt(case.prepare) for case in wanted]
        with take.alone():
            for case, call in zip(wanted, calls, strict=True):
                time_call(args.out, case.name, call)


def attempt(f: Callable[[], Any]) -> Any:
    """The result, or the exception: one row's failure must not hide the others."""
    try:
        return f()
    except Exception as e:
        return e


def time_call(out: Path, name: str, call: Any) -> None:
    seconds = call if isinstance(call, Exception) else attempt(lambda: median_seconds(*call))
    row: dict[str, Any]
    if isinstance(seconds, Exception):
        row = {"failure": f"{type(seconds).__name__}: {str(seconds)[:200]}"}
    else:
        row = {"milliseconds": round(seconds * 1e3, 4)}
    row |= {"device": jax.devices()[0].device_kind, "jax": jax.__version__}
    add_row(out, {"name": name, **row})
    print(name, row.get("milliseconds", row.get("failure")), flush=True)


if __name__ == "__main__":
    main()
