"""The commands: parse, build, call; no logic. jax is imported by those that need it, not before."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from bert_jax.cli.commands import bench, models, plan, runs, texts

COMMANDS: dict[str, Callable[[argparse.Namespace, list[str]], int]] = {
    "tokenizer": texts.tokenizer,
    "prepare": texts.prepare,
    "pretrain": runs.pretrain,
    "finetune": runs.finetune,
    "predict": models.predict,
    "fill": models.fill,
    "embed": models.embed,
    "probe": models.probe,
    "import": models.import_,
    "export": models.export,
    "inspect": models.inspect,
    "report": runs.report,
    "replay": runs.replay,
    "bench": bench.bench,
    "plan": plan.plan,
}

# Whose other flags are fields of a config.
OPEN = ("pretrain", "finetune", "inspect", "bench", "plan")
