"""How a command is declared, and how its arguments are parsed.

A command is a frozen dataclass. Its fields are the arguments with their types and defaults. The
docstring of the class is its help, the comment above a field the help of an argument. Commands
that take a config also take `--section.field value`, which changes a field of the config.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import itertools
import typing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, TypeVar

import tyro
from tyro.conf import Positional, arg

from bert_jax.utils.errors import did_you_mean

T = TypeVar("T")
Extra = Literal["none", "config", "beam"]

MODEL = "Run folder, imported folder, Hugging Face folder, or a name on the Hub: hf:NAME@REVISION."
Model = Annotated[Positional[str], arg(metavar="MODEL", help=MODEL)]
Config = Annotated[
    Positional[str],
    arg(
        metavar="CONFIG",
        help="Config file, or the name of a shipped one, such as bert_base. To change one of its "
        "fields, add --section.field VALUE.",
    ),
]


def optional(metavar: str) -> Any:
    """The annotation of a flag that has no value by default."""
    return arg(metavar=metavar, help_behavior_hint="")


def layer_numbers(layers: str) -> list[int]:
    """The numbers in `0,6,12`. ValueError: something else."""
    try:
        return [int(i) for i in layers.split(",")]
    except ValueError:
        raise ValueError(f"--layers is {layers!r}: expected numbers such as 0,6,12") from None


@dataclass(frozen=True)
class Command:
    """What every command has."""

    # The arguments that are passed to `run`: none, fields of a config, or options of Beam.
    extra: ClassVar[Extra] = "none"
    # The arguments that are texts, and may look like a path.
    texts: ClassVar[tuple[str, ...]] = ()

    def run(self, extra: list[str]) -> int:
        """Do what the command says. Returns the exit status."""
        raise NotImplementedError


def parse(command: type[Command], name: str, args: Sequence[str]) -> tuple[Command, list[str]]:
    """The command with its arguments, and what is left for `Command.run`.

    ValueError: an unknown flag, with the nearest known one; a missing or wrong value.
    """
    open_ended = command.extra == "beam" and "--engine beam" in " ".join(args).replace("=", " ")
    known = [f"--{n.replace('_', '-')}" for n in field_names(command)] + ["--help"]
    for flag in () if open_ended else _flags(args):
        # A flag with a dot is a field of the config, which is not loaded yet.
        if not (command.extra == "config" and "." in flag):
            _check_flag(flag, known, name)
    parsed, extra = parse_with_tyro(
        command,
        f"bert-jax {name}",
        args,
        return_unknown_args=True,
        config=(tyro.conf.FlagCreatePairsOff,),
    )
    if extra and not open_ended and (command.extra != "config" or not extra[0].startswith("--")):
        hint = f"see bert-jax {name} --help"
        if extra[0].startswith("-"):
            hint = f"give a text that begins with a hyphen after --, or {hint}"
        raise ValueError(f"unexpected argument {extra[0]!r} ({hint})")
    return parsed, extra


def change_config(experiment: T, overrides: Sequence[str], name: str) -> T:
    """The experiment with the fields that `--section.field value` gives.

    With `--help` among `overrides` it prints the fields and exits.
    ValueError: an unknown field, with the nearest known one; a wrong value.
    """
    known = [f"--{f.replace('_', '-')}" for f in config_fields(experiment)] + ["--help"]
    for flag in _flags(overrides):
        _check_flag(flag, known, f"{name} CONFIG")
    kind: Any = tyro.conf.AvoidSubcommands[type(experiment)]  # type: ignore[misc]
    return parse_with_tyro(kind, f"bert-jax {name} CONFIG", overrides, default=experiment)


def parse_with_tyro(kind: Any, prog: str, args: Sequence[str], **options: Any) -> Any:
    """`tyro.cli`, whose errors become a ValueError of one line."""
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            return tyro.cli(kind, prog=prog, args=list(args), **options)
    except SystemExit as e:
        if not e.code:  # the help was printed
            raise
        raise ValueError(f"{_first_section(errors.getvalue())} (see {prog} --help)") from None


def _first_section(box: str) -> str:
    """tyro's message without its frame; what follows the first rule repeats the help."""
    lines = []
    for line in box.splitlines():
        text = line.strip("│ ")
        if text.startswith("─"):
            break
        if not text.startswith(("╭", "╰")):
            lines.append(text)
    return " ".join(filter(None, lines)).removesuffix(".")


def _flags(args: Sequence[str]) -> Iterator[str]:
    """The flags among the arguments, with hyphens, without `=value`. After `--` there are none, so
    that a text may begin with a hyphen."""
    for word in itertools.takewhile(lambda word: word != "--", args):
        if word.startswith("--") and " " not in word:
            yield word.partition("=")[0].replace("_", "-")


def _check_flag(flag: str, known: Sequence[str], name: str) -> None:
    if flag not in known:
        hint = did_you_mean(flag, known, f"see bert-jax {name} --help")
        raise ValueError(f"unknown flag {flag}: {hint}")


def field_names(kind: Any) -> Iterator[str]:
    """The names of a dataclass's fields; those of a dataclass in a field stand for it."""
    hints = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        inner = hints[field.name]
        yield from field_names(inner) if dataclasses.is_dataclass(inner) else [field.name]


def config_fields(value: Any, prefix: str = "") -> Iterator[str]:
    """The dotted names of a config's fields; a switch has a second name that turns it off."""
    for field in dataclasses.fields(value):
        inner = getattr(value, field.name)
        if dataclasses.is_dataclass(inner):
            yield from config_fields(inner, f"{prefix}{field.name}.")
        else:
            yield prefix + field.name
            if isinstance(inner, bool):
                yield f"{prefix}no_{field.name}"
