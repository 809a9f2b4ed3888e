"""The command line. Exit status: 0 done; 2 the user's input is wrong; 143 or 130 stopped by
SIGTERM or SIGINT after saving; 134 jax ended this process because another one was lost; 1 anything
else."""

from __future__ import annotations

import errno
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
from bert_jax.cli.command import Command, field_names, parse
from bert_jax.cli.configs import load_config, load_config_or_model
from bert_jax.utils import compilation_cache, remote
from bert_jax.utils.errors import OUT_OF_MEMORY, RunError, did_you_mean, first_line, is_full

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
PATH_ERRNOS = (
    errno.ENAMETOOLONG,
    errno.ENOTEMPTY,
    errno.EBUSY,
    errno.ELOOP,
    errno.EXDEV,
    errno.EROFS,
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
    except KeyboardInterrupt:
        status = 130
    except Exception as e:
        failure = _failure(e)
        if failure is None:  # a defect
            raise
        message, status = failure
        print(f"bert-jax: {message}", file=sys.stderr)
    _exit(status)


def _failure(e: Exception) -> tuple[str, int] | None:
    """The message and the exit status for an error that is no defect."""
    if isinstance(e, ValueError) and raised_by_bert_jax(e):
        return str(e), 2
    if isinstance(e, RunError):
        return str(e), 1
    file, reason = (e.filename, e.strerror) if isinstance(e, OSError) else (None, None)
    if is_full(e):
        reason = reason or "no space is left on the disk, or in the quota"
        return f"{file or 'output'}: {reason}: make room, then try again", 1
    if file is not None and is_path_error(e):  # without one a library opened a file of its own
        return f"{file}: {reason}: choose another path", 2
    if isinstance(e, RuntimeError) and str(e).startswith(OUT_OF_MEMORY):  # of jax
        return (
            f"the device has too little memory: {first_line(e)}. In training add "
            "--optim.accumulate N (the same batch in N parts) or --run.remat full, in pre-training "
            "also --run.loss-chunks N, or lower data.batch_size; bert-jax plan estimates the need",
            1,
        )
    return None


def _run(argv: list[str]) -> int:
    name, args = (argv[0], _with_home(argv[1:])) if argv else ("", [])
    if name in ("-h", "--help"):
        print(_help())
        return 0
    if name not in COMMANDS:
        hint = did_you_mean(name, COMMANDS, "see bert-jax --help")
        problem = f"unknown command {name!r}" if name else "no command is given"
        raise ValueError(f"{problem}: {hint}")
    if COMMANDS[name].extra == "config" and args[1:] in (["-h"], ["--help"]):
        only_config = "config" in field_names(COMMANDS[name])
        load = load_config if only_config else load_config_or_model
        load(args[0], ["--help"], name)  # prints the fields and exits
    command, extra = parse(COMMANDS[name], name, args)
    remote.refuse_remote({k: v for k, v in vars(command).items() if k not in command.texts})
    return command.run(extra)


def _with_home(args: Sequence[str]) -> list[str]:
    """The arguments with the user's folder in `--flag=~/path`, where a shell leaves the `~`."""
    words = list(args)
    for i, word in enumerate(words):
        if word == "--":  # texts follow
            break
        flag, equals, value = word.partition("=")
        if flag.startswith("--") and " " not in flag and value.startswith("~/"):
            words[i] = f"{flag}{equals}{os.path.expanduser(value)}"
    return words


def _help() -> str:
    """All commands with the first sentence of each."""
    width = max(map(len, COMMANDS)) + 2
    lines = ["usage: bert-jax COMMAND ...", "", "Pre-train and use the BERT family in JAX.", ""]
    for name, command in COMMANDS.items():
        lines.append(f"  {name:<{width}}{(inspect.getdoc(command) or '').splitlines()[0]}")
    return "\n".join([*lines, "", "bert-jax COMMAND --help says more, with an example."])


def is_path_error(e: BaseException) -> bool:
    """Whether a path that the user gave is wrong."""
    return isinstance(e, PATH_ERRORS) or (isinstance(e, OSError) and e.errno in PATH_ERRNOS)


def raised_by_bert_jax(e: BaseException) -> bool:
    """Whether the innermost frame of a traceback is in this package or in a config file."""
    last = traceback.extract_tb(e.__traceback__)[-1].filename
    return last == "<string>" or PACKAGE in Path(last).parents


def _exit(status: int) -> NoReturn:
    if "bert_jax.distributed.initialize" in sys.modules:
        from bert_jax.distributed import initialize

        initialize.exit_process(status)
    sys.exit(status)
