"""The measurement."""

from __future__ import annotations

import argparse
import json
import sys
from functools import partial

from bert_jax import memory
from bert_jax.commands.asked import from_config


def bench(args: argparse.Namespace, rest: list[str]) -> int:
    memory.keep()  # both sides have it
    experiment = from_config(args.config, rest, "bench")
    from bert_jax.bench import Asked, bench, render

    names = ("batch_size", "length", "steps", "fit", "data", "packed")
    given = {name: getattr(args, name) for name in names}
    asked = Asked(**given, against=args.against is not None, compile=not args.no_compile)
    found = bench(experiment, asked, partial(print, file=sys.stderr))
    print(json.dumps(found) if args.json else render(found))
    return 0
