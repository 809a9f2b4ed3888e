"""Check whether two runs of one seed are the same bit for bit on this machine, and what that costs.

    python benchmarks/gpu_same.py --out same.jsonl [--tiny]

Each row is a process, written as soon as it ends; rows that are there are not made again. The four
compile side by side, and train one after the other:

    plain A, plain B                    two runs as users start them
    deterministic A, deterministic B    with XLA's flags for deterministic kernels (FLAGS)

A row has the hash of all parameters after `steps` steps, the losses, and the median step time. The
last lines say whether A and B are equal, how far their losses are apart, and the ratio of the step
times.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from gpu_rows import add_row, read_rows

ROOT = Path(__file__).parents[1]
FLAGS = {
    "plain": "",
    "deterministic": "--xla_gpu_deterministic_ops=true --xla_gpu_autotune_level=0",
}


def train(config_name: str, rows: int, length: int, steps: int, turns: Path) -> dict[str, Any]:
    """In this process: a fresh model, trained on random ids."""
    import jax
    from gpu_turns import Turns

    from bert_jax.config import from_python_file, replace
    from bert_jax.perf.bench.inputs import open_inputs
    from bert_jax.perf.bench.train_step import BertJax
    from bert_jax.training.step import to_floats

    dtype = "bfloat16" if jax.default_backend() != "cpu" else "float32"
    config = replace(
        from_python_file(str(ROOT / "configs" / f"{config_name}.py")),
        data=dict(batch_size=rows, length=length, stages=None),
        run=dict(dtype=dtype),
    )
    take, losses, seconds = Turns(turns), [], []
    with ExitStack() as stack:
        with take.preparing():
            contender = BertJax(open_inputs(config, None, stack), jax.devices()[:1])
            contender.compile()
        with take.alone():
            for _ in range(steps):
                start = time.perf_counter()
                contender.step()
                contender.wait()
                seconds.append(time.perf_counter() - start)
                losses.append(to_floats(contender._metrics)["loss"])
    leaves = jax.tree.leaves(jax.device_get(contender._state.params))
    digest = hashlib.sha256(b"".join(x.tobytes() for x in leaves)).hexdigest()
    return {
        "sha256": digest,
        "losses": losses,
        "seconds": statistics.median(seconds[len(seconds) // 4 :]),
        "device": jax.devices()[0].device_kind,
        "jax": jax.__version__,
    }


def run_process(args: argparse.Namespace, flags: str, turns: str) -> dict[str, Any]:
    env = os.environ | {
        "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip(),
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
    }
    command = [sys.executable, __file__, "--train", args.config]
    command += [*(str(n) for n in (args.rows, args.length, args.steps)), turns]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, cwd=ROOT)
    if done.returncode:
        return {"failure": done.stderr.strip().splitlines()[-1][:300]}
    return json.loads(done.stdout.splitlines()[-1])


def compare(rows: dict[str, dict[str, Any]]) -> list[str]:
    lines = []
    for kind in FLAGS:
        a, b = (rows[f"{kind} {x}"] for x in "AB")
        if "failure" in a or "failure" in b:
            lines.append(f"{kind}: failed")
            continue
        same = "the same bits" if a["sha256"] == b["sha256"] else "other bits"
        apart = max(abs(x - y) for x, y in zip(a["losses"], b["losses"], strict=True))
        lines.append(f"{kind}: {same} after {len(a['losses'])} steps; losses {apart:.3g} apart")
    if not any("failure" in row for row in rows.values()):
        ratio = rows["deterministic A"]["seconds"] / rows["plain A"]["seconds"]
        lines.append(f"the flags: {ratio:.2f} times the time of a step")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, help="file of rows")
    parser.add_argument("--config", default="bert_base")
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--turns", help="folder of locks, shared with other programs")
    parser.add_argument("--tiny", action="store_true", help="tiny_bert, 3 steps: also on a CPU")
    parser.add_argument("--train", nargs=5, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.train:
        config, *sizes, turns = args.train
        print(json.dumps(train(config, *(int(n) for n in sizes), Path(turns))))
        return
    if args.out is None:
        parser.error("--out is missing")
    if args.tiny:
        args.config, args.rows, args.length, args.steps = "tiny_bert", 4, 32, 3
    rows = read_rows(args.out)
    names = [f"{kind} {x}" for kind in FLAGS for x in "AB"]

    def add(name: str, turns: str) -> None:
        rows[name] = {"name": name, **run_process(args, FLAGS[name.split()[0]], turns)}
        add_row(args.out, rows[name])

    with tempfile.TemporaryDirectory() as turns, ThreadPoolExecutor(len(names)) as pool:
        list(
            pool.map(
                lambda name: add(name, args.turns or turns), [n for n in names if n not in rows]
            )
        )
    print("\n".join(compare(rows)))


if __name__ == "__main__":
    main()
