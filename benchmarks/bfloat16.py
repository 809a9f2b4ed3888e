"""Compare learning in bfloat16 with float32, for the five families with the demo's recipe.

    benchmarks/demo_corpora.sh runs/families
    python benchmarks/bfloat16.py runs/families --out bfloat16.json

A run in float32 trains until its loss at [MASK] places is one nat below word frequencies. A run in
bfloat16 with the same seed, and one in float32 with the next seed, train to the same step. A loss
is compared as the distance to word frequencies at the same places, since another seed also hides
other places. If the first two are closer than the two seeds are, rounding matters less than the
seed. With `--seeds N` this is done from seeds 0 to N - 1.

The runs are stopped with SIGTERM, as on a machine that is taken away, so the learning rate follows
the schedule of the whole recipe. Families that the file has already are not trained again.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

from bert_jax.utils import metrics_log

CONFIGS = Path(__file__).parents[1] / "configs"
CORPORA = {
    "demo": "nsp",
    "demo_albert": "sop",
    "demo_roberta": "full",
    "demo_electra": "electra",
    "demo_spanbert": "single",
}
BELOW_FREQUENCIES = 1.0  # nat
EVERY = 50  # steps between evaluations
Line = dict[str, Any]  # of metrics.jsonl


def compare(name: str, seed: int, root: Path, out: Path) -> Line:
    """The three runs of one config: the step where they were compared, and the loss in float32 and
    how much higher it is in the others, relative to word frequencies."""
    runs = out.parent / f"{out.stem}_runs"

    def train(dtype: str, seed: int, done: Callable[[Line], bool]) -> list[Line]:
        run = runs / name / f"{dtype}_{seed}"
        flags = ["--data.path", root / f"corpus-{CORPORA[name]}", "--run.dir", run]
        flags += ["--run.dtype", dtype, "--run.seed", seed, "--run.eval-every", EVERY]
        return train_until(CONFIGS / f"{name}.py", [str(f) for f in flags], done)

    first = train("float32", seed, lambda line: margin(line) >= BELOW_FREQUENCIES)
    last = next((line for line in first if margin(line) >= BELOW_FREQUENCIES), first[-1])
    step = last["step"]
    others = {
        "bfloat16": train("bfloat16", seed, lambda line: line["step"] >= step),
        "another_seed": train("float32", seed + 1, lambda line: line["step"] >= step),
    }
    found = {kind: next(x for x in lines if x["step"] == step) for kind, lines in others.items()}
    return {
        "config": name,
        "seed": seed,
        "step": step,
        "unigram": last["eval_unigram_loss"],
        "float32": last["eval_mask_loss"],
        **{kind: margin(last) - margin(line) for kind, line in found.items()},
        "below_frequencies": {
            kind: {x["step"]: margin(x) for x in lines if x["step"] <= step}
            for kind, lines in {"float32": first, **others}.items()
        },
    }


def margin(line: Line) -> float:
    """Nat below word frequencies at the same places."""
    return line["eval_unigram_loss"] - line["eval_mask_loss"]


def train_until(config: Path, flags: list[str], done: Callable[[Line], bool]) -> list[Line]:
    """The evaluations of a run, which is stopped after the first that is `done`."""
    run = Path(flags[flags.index("--run.dir") + 1])
    if not any(map(done, lines := read_evaluations(run))):
        command = [sys.executable, "-m", "bert_jax", "pretrain", str(config), *flags]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
            while process.poll() is None and not any(map(done, read_evaluations(run))):
                time.sleep(1)
            process.send_signal(signal.SIGTERM)
        lines = read_evaluations(run)
    if not lines:
        raise SystemExit(f"{run} has no evaluation: `{' '.join(command)}` shows why")
    return lines


def read_evaluations(run: Path) -> list[Line]:
    if not (run / "metrics.jsonl").exists():
        return []
    return [line for line in metrics_log.read_metrics(run) if "eval_mask_loss" in line]


def format_row(case: Line) -> str:
    return (
        f"| {case['config']} | {case['seed']} | {case['step']} | {case['unigram']:.3f} | "
        f"{case['float32']:.3f} | {case['bfloat16']:+.3f} | {case['another_seed']:+.3f} |"
    )


def main() -> None:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    parser.add_argument("root", type=Path, help="the folder of demo_corpora.sh")
    parser.add_argument("--out", type=Path, required=True, help="file; runs lie beside it")
    parser.add_argument("--configs", nargs="+", choices=[*CORPORA], default=[*CORPORA])
    parser.add_argument("--seeds", type=int, default=1)
    args = parser.parse_args()
    cases = json.loads(args.out.read_text()) if args.out.exists() else []
    for name, seed in product(args.configs, range(args.seeds)):
        if not any((case["config"], case["seed"]) == (name, seed) for case in cases):
            cases.append(compare(name, seed, args.root, args.out))
            args.out.write_text(json.dumps(cases, indent=1) + "\n")
    print("| config | seed | step | word frequencies | float32 | bfloat16 | another seed |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    print("\n".join(format_row(case) for case in cases))


if __name__ == "__main__":
    main()
