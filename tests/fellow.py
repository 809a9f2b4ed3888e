"""One of several processes that train a small model: what tests/test_processes.py starts.

python tests/fellow.py FOLDER STEPS MESH RATE    with the place in the environment
"""

import json
import os
import sys
from pathlib import Path

import conftest  # noqa: F401  quick compilation
import jax
import small

from bert_jax import processes, sharding, train
from bert_jax.checkpoint import Checkpoints
from bert_jax.config import Experiment, Mesh, replace
from bert_jax.data import Batches
from bert_jax.failure import Failure
from bert_jax.guard import Stop


def fit(config: Experiment, folder: Path) -> int:
    """Trains; writes the rows that each step read beside the log."""
    objective = small.build(config)
    mesh = sharding.make_mesh(config.mesh)
    steps = train.build(config, objective, mesh)
    (part,) = sharding.parts(mesh)
    rows = Batches([small.Rows(200)], config.data.batch_size, small.LENGTH, 0, process=part)
    held_out = Batches([small.Rows(20)], config.data.batch_size, small.LENGTH, 0, process=part)

    def score(params: object) -> dict:
        return train.evaluate(steps, objective, params, held_out.once(2))

    read = [rows[i]["row"].tolist() for i in range(3)]
    (folder / f"rows-{jax.process_index()}.json").write_text(json.dumps(read))
    with Checkpoints(folder / "checkpoints") as checkpoints, Stop() as stop:
        train.fit(config, steps, rows.start, score, checkpoints, folder, stop)
    return 0 if stop.signal is None else 128 + stop.signal


def main() -> int:
    folder, steps, mesh, rate = sys.argv[1:]
    shape = Mesh(*map(int, mesh.split(",")))
    run = dict(steps=int(steps), save_every=100, eval_every=3)
    optim = dict(decay_steps=1000, peak_lr=float(rate))
    config = replace(small.FAMILIES["bert"], run=run, optim=optim, mesh=shape)
    try:
        with processes.joined(processes.place(), config, wait=float(os.environ["WAIT"])):
            return fit(config, Path(folder))
    except (ValueError, Failure) as e:
        print(e, file=sys.stderr)
        return 2 if isinstance(e, ValueError) else 1


if __name__ == "__main__":
    status = main()
    processes.leave(status)
    sys.exit(status)
