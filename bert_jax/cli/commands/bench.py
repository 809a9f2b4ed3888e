"""The measurement."""

from __future__ import annotations

import argparse
import json
import logging

from bert_jax.cli.overrides import from_config
from bert_jax.utils import malloc

logger = logging.getLogger(__name__)
SET = ("--data.path", "--data.mix")  # fields that a measurement sets by itself


def bench(args: argparse.Namespace, rest: list[str]) -> int:
    malloc.tune()  # both sides have it
    _refuse_vain(rest, args.against is not None)
    experiment = from_config(args.config, rest, "bench")
    from bert_jax.perf.bench import BenchOptions, bench, render

    names = ("batch_size", "length", "steps", "fit", "data", "packed")
    given = {name: getattr(args, name) for name in names}
    asked = BenchOptions(**given, against=args.against is not None, compile=not args.no_compile)
    found = bench(experiment, asked, logger.info)
    print(json.dumps(found) if args.json else render(found))
    return 0


def _refuse_vain(rest: list[str], against: bool) -> None:
    """ValueError: a field that would change nothing."""
    for option in (o.partition("=")[0] for o in rest):
        if option in SET:
            raise ValueError(f"{option}: rows are those of --data CORPUS, else random: use --data")
        if against and option.startswith("--mesh."):
            raise ValueError(
                f"{option} beside --against: both sides train on one device; leave out one of them"
            )
