"""One of several processes that train a small model, for tests/distributed/test_processes.py.

python -m tests.helpers.multiprocess_worker FOLDER STEPS MESH RATE
"""

import json
import os
import sys
from pathlib import Path

import jax

from bert_jax.checkpoint.manager import Checkpoints
from bert_jax.config import Experiment, Mesh, replace
from bert_jax.data.loader import Loader
from bert_jax.distributed import initialize, sharding
from bert_jax.training import step as train
from bert_jax.training.guard import PreemptionHandler
from bert_jax.utils.errors import RunError
from tests import conftest  # noqa: F401  quick compilation
from tests.helpers import tiny_configs


def fit(config: Experiment, folder: Path) -> int:
    """Trains; writes the rows that each step read beside the log."""
    objective = tiny_configs.build(config)
    mesh = sharding.make_mesh(config.mesh)
    steps = train.build_steps(config, objective, mesh)
    (part,) = sharding.process_slices(mesh)
    rows = Loader(
        [tiny_configs.Rows(200)], config.data.batch_size, tiny_configs.LENGTH, 0, process=part
    )
    held_out = Loader(
        [tiny_configs.Rows(20)], config.data.batch_size, tiny_configs.LENGTH, 0, process=part
    )

    def score(params: object) -> dict:
        return train.evaluate(steps, objective, params, held_out.one_pass(2))

    read = [rows[i]["row"].tolist() for i in range(3)]
    (folder / f"rows-{jax.process_index()}.json").write_text(json.dumps(read))
    with Checkpoints(folder / "checkpoints") as checkpoints, PreemptionHandler() as stop:
        train.fit(config, steps, rows.iterate, score, checkpoints, folder, stop)
    return 0 if stop.signal is None else 128 + stop.signal


def main() -> int:
    folder, steps, mesh, rate = sys.argv[1:]
    shape = Mesh(*map(int, mesh.split(",")))
    run = dict(steps=int(steps), save_every=100, eval_every=3)
    optim = dict(decay_steps=1000, peak_lr=float(rate))
    config = replace(tiny_configs.FAMILIES["bert"], run=run, optim=optim, mesh=shape)
    try:
        with initialize.connect(
            initialize.detect_process(), config, wait=float(os.environ["WAIT"])
        ):
            return fit(config, Path(folder))
    except (ValueError, RunError) as e:
        print(e, file=sys.stderr)
        return 2 if isinstance(e, ValueError) else 1


if __name__ == "__main__":
    status = main()
    initialize.exit_process(status)
    sys.exit(status)
