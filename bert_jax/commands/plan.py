"""The plan."""

from __future__ import annotations

import argparse
import json
import sys
from functools import partial

from bert_jax.commands.asked import from_config


def plan(args: argparse.Namespace, rest: list[str]) -> int:
    experiment = from_config(args.config, rest, "plan")
    from bert_jax.plan.slices import alone

    alone()  # before jax is imported
    from bert_jax.plan import plan, render

    found = plan(experiment, args.topology, args.fit, partial(print, file=sys.stderr))
    print(json.dumps(found) if args.json else render(found))
    return 0
