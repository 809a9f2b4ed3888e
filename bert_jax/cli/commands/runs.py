"""What makes runs, and what looks back at them."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bert_jax.cli import logs
from bert_jax.cli.overrides import from_config, override
from bert_jax.utils import malloc

logger = logging.getLogger(__name__)


def pretrain(args: argparse.Namespace, rest: list[str]) -> int:
    malloc.tune()
    init = [] if args.init is None else ["--run.init", args.init]
    experiment = from_config(args.config, [*rest, *init])
    vain = [o for o in rest if o.startswith("--encoder.") and "dropout" not in o]
    if vain and experiment.run.init is not None:
        raise ValueError(f"{vain[0]} beside --init: the encoder is the model's but for its dropout")
    from bert_jax.training.pretrain import pretrain

    return _together(args, experiment, lambda: pretrain(experiment, args.profile, args.take_over))


def finetune(args: argparse.Namespace, rest: list[str]) -> int:
    malloc.tune()
    from bert_jax import config

    recipe = config.from_python_file(args.config)
    given = [("--run.init", args.init), ("--objective.task", args.task), ("--data.path", args.data)]
    rest = [*rest, *(part for pair in given for part in pair)]
    vain = [o for o in rest if o.startswith("--encoder.") and "dropout" not in o]
    if vain:
        raise ValueError(f"{vain[0]}: the encoder is the model's but for its dropout")
    from bert_jax.training.finetune import finetune
    from bert_jax.training.finetune_config import for_model

    experiment = for_model(recipe, lambda e: override(e, rest, "finetune"))

    def train() -> int | None:
        _check_seeds(args.seeds)
        return finetune(experiment, args.seeds, args.take_over)

    return _together(args, experiment, train)


def _check_seeds(seeds: int) -> None:
    """ValueError, in all processes: they were asked for different numbers of runs, which no config
    holds and so `processes.joined` does not compare."""
    import numpy as np
    from jax.experimental import multihost_utils

    told = multihost_utils.process_allgather(np.int64(seeds)).ravel().tolist()
    other = next((i for i, n in enumerate(told) if n != told[0]), None)
    if other is not None:
        raise ValueError(
            f"the processes were started differently: --seeds is {told[0]} in process 0 and "
            f"{told[other]} in process {other}. Give all of them the same command"
        )


def _together(args: argparse.Namespace, experiment: Any, train: Callable[[], int | None]) -> int:
    """`train` with the other processes, if there are any; the first says how it ended."""
    from bert_jax.distributed import initialize

    place = initialize.detect_process(args.processes, args.process, args.coordinator)
    if place is not None and place.number > 0:
        logs.show_errors_only()
    with initialize.connect(place, experiment, args.wait):
        stopped = train()
    if stopped is not None:
        return 128 + stopped
    if place is None or place.number == 0:
        from bert_jax.training import report

        print(report.summary(experiment.run.dir))
    return 0


def report(args: argparse.Namespace, rest: list[str]) -> int:
    from bert_jax.training import report

    for path in report.report([Path(run) for run in args.run], Path(args.out)):
        print(path)
    return 0


def replay(args: argparse.Namespace, rest: list[str]) -> int:
    from bert_jax.training.replay import render_replay, replay

    result = replay(Path(args.run), args.step)
    print(render_replay(result, Path(args.run)))
    if result.differences:
        logger.warning("the machine or a version differs from the run's")
    return 0
