"""What makes runs, and what looks back at them."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable
from functools import partial
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

    flags = {"--seeds": args.seeds}  # no config holds it, and processes must agree
    train = partial(finetune, experiment, args.seeds, args.take_over)
    return _together(args, experiment, train, flags)


def _together(
    args: argparse.Namespace,
    experiment: Any,
    train: Callable[[], int | None],
    flags: dict[str, Any] | None = None,
) -> int:
    """`train` with the other processes, if there are any; the first says how it ended."""
    from bert_jax.distributed import initialize

    process = initialize.detect_process(args.processes, args.process, args.coordinator)
    if process is not None and process.index > 0:
        logs.show_errors_only()
    timeouts = {"wait": args.wait, "heartbeat_timeout": args.heartbeat_timeout}
    with initialize.connect(process, experiment, flags, **timeouts):
        stopped = train()
    if stopped is not None:
        return 128 + stopped
    if process is None or process.index == 0:
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
