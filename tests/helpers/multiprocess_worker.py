"""One of several processes that train a small model, for tests/distributed/test_processes.py.

python -m tests.helpers.multiprocess_worker FOLDER STEPS SAVE_EVERY MESH RATE
"""

import dataclasses
import json
import os
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np

from bert_jax.checkpoint.manager import Checkpoints
from bert_jax.config import Contrastive, Experiment, Mesh, replace
from bert_jax.data.loader import Loader
from bert_jax.data.pairs import PairBatches
from bert_jax.distributed import initialize, sharding
from bert_jax.distributed.process_info import detect_process
from bert_jax.training import evaluation, loop
from bert_jax.training.guard import PreemptionHandler
from bert_jax.training.step import compile_steps
from bert_jax.utils.errors import RunError
from tests.helpers import tiny_configs

BATCH_SIZE = 12  # divides by 2, 3 and 4 devices


def fit(config: Experiment, folder: Path) -> int:
    """Train. Write the rows that each step read, and the final parameters, beside the log."""
    index = jax.process_index()
    if os.environ.get("FAIL") == str(index):
        raise KeyError("a defect of this process alone")
    objective = tiny_configs.build(config)
    mesh = sharding.make_mesh(config.mesh)
    steps = compile_steps(config, objective, mesh)
    (part,) = sharding.process_slices(mesh)
    held_out = Loader([tiny_configs.Rows(30)], BATCH_SIZE, tiny_configs.LENGTH, 0, process=part)
    rows: Any = dataclasses.replace(held_out, sources=[tiny_configs.Rows(200)])
    if os.environ.get("PAIRS"):
        rows = PairBatches(random_pairs(), BATCH_SIZE, 0, parts=(part,))

    def score(params: object) -> dict:
        if os.environ.get("PAIRS"):
            return {}
        return evaluation.evaluate(steps, objective, params, held_out.one_pass(2))

    read = [rows[i]["row"].tolist() for i in range(3)]
    (folder / f"rows-{index}.json").write_text(json.dumps(read))
    with Checkpoints(folder / "checkpoints") as checkpoints, PreemptionHandler() as stop:
        state = loop.fit(config, steps, rows.iterate, score, checkpoints, folder, stop)
    leaves = [x.addressable_data(0) for x in jax.tree.leaves(state.params)]
    np.savez(folder / f"params-{index}.npz", *leaves)
    return 0 if stop.signal is None else 128 + stop.signal


def random_pairs(count: int = 40) -> list[dict]:
    """Encoded pairs with a hard negative each, of which some texts are equal."""
    rng = np.random.default_rng(0)
    texts = [
        rng.integers(5, tiny_configs.V, rng.integers(3, 9)).astype(np.int32) for _ in range(60)
    ]
    numbers = rng.integers(0, 60, (count, 3)).astype(np.int32)
    return [
        {
            "query": texts[q],
            "documents": [texts[n] for n in documents],
            "texts": np.array([q, *documents], np.int32),
            "positives": np.array(documents[:1], np.int32),
            "score": np.float32(0),
        }
        for q, *documents in numbers.tolist()
    ]


def main() -> int:
    folder, steps, save_every, mesh, rate = sys.argv[1:]
    config = replace(
        tiny_configs.FAMILIES["bert"],
        data=dict(batch_size=BATCH_SIZE),
        run=dict(steps=int(steps), save_every=int(save_every), eval_every=3),
        optim=dict(decay_steps=1000, peak_lr=float(rate)),
        mesh=Mesh(*map(int, mesh.split(","))),
    )
    if os.environ.get("PAIRS"):
        pairs = Contrastive(loss="ranking")
        config = replace(config, objective=pairs, optim=dict(accumulate=int(os.environ["PAIRS"])))
    timeouts = {
        "wait": float(os.environ["WAIT"]),
        "heartbeat_timeout": int(os.environ["HEARTBEAT_TIMEOUT"]),
    }
    try:
        with initialize.connect(detect_process(), config, **timeouts):
            return fit(config, Path(folder))
    except (ValueError, RunError) as e:
        print(e, file=sys.stderr)
        return 2 if isinstance(e, ValueError) else 1


if __name__ == "__main__":
    status = main()
    initialize.exit_process(status)
    sys.exit(status)
