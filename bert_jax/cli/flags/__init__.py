"""The flags of every command, with one example each."""

from __future__ import annotations

import argparse
import sys
from typing import NoReturn

from bert_jax.cli.flags import bench, models, plan, runs, texts

COMMANDS = (  # in the order of the help
    texts.tokenizer,
    texts.prepare,
    runs.pretrain,
    runs.finetune,
    models.predict,
    models.fill,
    models.embed,
    models.probe,
    models.import_,
    models.export,
    models.inspect,
    runs.report,
    runs.replay,
    bench.bench,
    plan.plan,
)


def parser() -> argparse.ArgumentParser:
    top = _Parser(prog="bert-jax", description="Pre-train and use the BERT family in JAX.")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, says: str, example: str) -> argparse.ArgumentParser:
        epilog = f"example: bert-jax {example}"
        return commands.add_parser(name, help=says, description=says, epilog=epilog)

    for add in COMMANDS:
        add(command)
    return top


class _Parser(argparse.ArgumentParser):
    """argparse's messages in one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        print(f"{self.prog}: {message} (see {self.prog} --help)", file=sys.stderr)
        raise SystemExit(2)
