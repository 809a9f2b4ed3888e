"""The plan."""

from __future__ import annotations

import argparse
import json
import logging

from bert_jax.cli.overrides import from_config

logger = logging.getLogger(__name__)


def plan(args: argparse.Namespace, rest: list[str]) -> int:
    experiment = from_config(args.config, rest, "plan")
    from bert_jax.perf.plan.topologies import without_tpu_env

    without_tpu_env()  # before jax is imported
    from bert_jax.perf.plan import plan, render_plan

    found = plan(experiment, args.topology, args.fit, logger.info)
    print(json.dumps(found) if args.json else render_plan(found))
    return 0
