"""The command line. Exit status: 0 done; 2 the user's input is wrong; 143 or 130 stopped by
SIGTERM or SIGINT after saving; 134 jax ended this process because another one was lost; 1 anything
else."""

from __future__ import annotations

import inspect
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from bert_jax.cli import (
    convert_commands,
    demo_command,
    evaluate_command,
    logs,
    model_commands,
    perf_commands,
    run_commands,
    search_commands,
    text_commands,
    tokenize_command,
)
from bert_jax.cli.command import Command, parse
from bert_jax.cli.configs import load_config_or_model
from bert_jax.utils import compilation_cache, remote
from bert_jax.utils.errors import FULL, OUT_OF_MEMORY, RunError, did_you_mean, first_line

COMMANDS: dict[str, type[Command]] = {  # in the order of the help
    "demo": demo_command.Demo,
    "tokenizer": text_commands.Tokenizer,
    "tokenize": tokenize_command.Tokenize,
    "prepare": text_commands.Prepare,
    "pretrain": run_commands.Pretrain,
    "finetune": run_commands.Finetune,
    "predict": model_commands.Predict,
    "fill": model_commands.Fill,
    "evaluate": evaluate_command.Evaluate,
    "embed": search_commands.Embed,
    "search": search_commands.Search,
    "mine": search_commands.Mine,
    "probe": model_commands.Probe,
    "import": convert_commands.Import,
    "export": convert_commands.Export,
    "inspect": model_commands.Inspect,
    "report": run_commands.Report,
    "replay": run_commands.Replay,
    "bench": perf_commands.Bench,
    "plan": perf_commands.Plan,
}

PACKAGE = Path(__file__).parents[1]

# A path that the user gave is wrong: a file where a folder is needed, or no permission.
PATH_ERRORS = (
    FileExistsError,
    FileNotFoundError,
    NotADirectoryError,
    IsADirectoryError,
    PermissionError,
)


OUTPUT_CLOSED = 128 + signal.SIGPIPE


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run a command and exit with its status. `argv` is `sys.argv[1:]` by default."""
    logs.configure()
    compilation_cache.enable()
    try:
        status = _run(sys.argv[1:] if argv is None else list(argv))
        sys.stdout.flush()
    except BrokenPipeError:  # who reads the output, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = OUTPUT_CLOSED
    except ValueError as e:
        # bert_jax raises ValueError for wrong input; one of another library is a defect.
        if not raised_by_bert_jax(e):
            raise
        _fail(str(e))
    except PATH_ERRORS as e:
        if e.filename is None:  # a library raised it, and the user has no path to change
            raise
        _fail(f"{e.filename}: {e.strerror}: choose another path")
    except OSError as e:
        if e.errno not in FULL:
            raise
        _fail(f"{e.filename or 'output'}: {e.strerror}: make room, then try again", status=1)
    except RunError as e:
        _fail(str(e), status=1)
    except RuntimeError as e:  # of jax
        if not str(e).startswith(OUT_OF_MEMORY):
            raise
        _fail(
            f"the device has too little memory: {first_line(e)}. In training add "
            "--optim.accumulate N (the same batch in N parts), --run.remat full or "
            "--run.loss-chunks N, or lower data.batch_size; bert-jax plan estimates the need",
            status=1,
        )
    except KeyboardInterrupt:
        status = 130
    _exit(status)


def _run(argv: list[str]) -> int:
    name, args = (argv[0], argv[1:]) if argv else ("", [])
    if name in ("-h", "--help"):
        print(_help())
        return 0
    if name not in COMMANDS:
        hint = did_you_mean(name, COMMANDS, "see bert-jax --help")
        problem = f"unknown command {name!r}" if name else "no command is given"
        raise ValueError(f"{problem}: {hint}")
    if COMMANDS[name].extra == "config" and args[1:] in (["-h"], ["--help"]):
        load_config_or_model(args[0], ["--help"], name)  # prints the fields and exits
    command, extra = parse(COMMANDS[name], name, args)
    remote.refuse_remote(vars(command))
    return command.run(extra)


def _help() -> str:
    """All commands with the first sentence of each."""
    width = max(map(len, COMMANDS)) + 2
    lines = ["usage: bert-jax COMMAND ...", "", "Pre-train and use the BERT family in JAX.", ""]
    for name, command in COMMANDS.items():
        lines.append(f"  {name:<{width}}{(inspect.getdoc(command) or '').splitlines()[0]}")
    return "\n".join([*lines, "", "bert-jax COMMAND --help says more, with an example."])


def raised_by_bert_jax(e: BaseException) -> bool:
    """Whether the innermost frame of a traceback is in this package or in a config file."""
    last = traceback.extract_tb(e.__traceback__)[-1].filename
    return last == "<string>" or PACKAGE in Path(last).parents


def _fail(message: str, status: int = 2) -> NoReturn:
    print(f"bert-jax: {message}", file=sys.stderr)
    _exit(status)


def _exit(status: int) -> NoReturn:
    if "bert_jax.distributed.initialize" in sys.modules:
        from bert_jax.distributed import initialize

        initialize.exit_process(status)
    sys.exit(status)
