"""From a command line to an exit status: 0 done; 2 the user's input is wrong; 143 (130) stopped
by SIGTERM (SIGINT) after saving; 134 jax ended this process because another one was lost; 1
anything else."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from bert_jax.cli import flags, logs
from bert_jax.cli.commands import COMMANDS, OPEN
from bert_jax.cli.overrides import from_config
from bert_jax.utils import compilation_cache, remote
from bert_jax.utils.errors import FULL, RunError

PACKAGE = Path(__file__).parents[1]


# A path of the user's that cannot be: a file where a folder is needed, no permission.
PATH_ERRORS = (
    FileExistsError,
    FileNotFoundError,
    NotADirectoryError,
    IsADirectoryError,
    PermissionError,
)


def main(argv: Sequence[str] | None = None) -> NoReturn:
    logs.configure()
    compilation_cache.enable()
    try:
        status = _run(sys.argv[1:] if argv is None else list(argv))
    except ValueError as e:
        # Our own code says ValueError where the input is wrong; from elsewhere it is a defect.
        if not _raised_here(e):
            raise
        _fail(str(e))
    except PATH_ERRORS as e:
        if e.filename is None:  # a library's own, which names no path that could be another
            raise
        _fail(f"{e.filename}: {e.strerror}: choose another path")
    except OSError as e:
        if e.errno not in FULL:
            raise
        _fail(f"{e.filename or 'output'}: {e.strerror}: make room, then try again", status=1)
    except RunError as e:
        _fail(str(e), status=1)
    except KeyboardInterrupt:
        status = 130
    _end(status)


def _run(argv: list[str]) -> int:
    if argv[:1] in (["pretrain"], ["finetune"]) and argv[2:] == ["--help"]:
        from_config(argv[1], ["--help"], argv[0])  # the fields of this config; does not return
    args, rest = flags.parser().parse_known_args(argv)
    beam = getattr(args, "engine", None) == "beam"  # whose runners have flags of their own
    if rest and args.command not in OPEN and not beam:
        _fail(f"unknown argument {rest[0]!r} (see bert-jax {args.command} --help)")
    remote.refuse_remote(vars(args))
    return COMMANDS[args.command](args, rest)


def _raised_here(e: BaseException) -> bool:
    last = traceback.extract_tb(e.__traceback__)[-1].filename
    return last == "<string>" or PACKAGE in Path(last).parents


def _fail(message: str, status: int = 2) -> NoReturn:
    print(f"bert-jax: {message}", file=sys.stderr)
    _end(status)


def _end(status: int) -> NoReturn:
    if "bert_jax.distributed.initialize" in sys.modules:
        from bert_jax.distributed import initialize

        initialize.exit_process(status)
    sys.exit(status)
