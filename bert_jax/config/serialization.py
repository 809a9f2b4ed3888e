"""Change configs by field name, save and read them as JSON, load them from Python files.

Unknown field names are errors.
"""

from __future__ import annotations

import dataclasses
import json
import runpy
import types
import typing
from collections.abc import Collection
from pathlib import Path
from typing import Any, Literal, TypeVar, Union

from bert_jax.config.contrastive import Contrastive
from bert_jax.config.objectives import Imported, Masked, Objective, ReplacedTokens
from bert_jax.config.schema import Experiment
from bert_jax.config.supervised import Supervised
from bert_jax.utils import io
from bert_jax.utils.errors import did_you_mean
from bert_jax.utils.shipped import shipped_configs

T = TypeVar("T")

OBJECTIVES = {c.__name__: c for c in (Masked, ReplacedTokens, Imported, Supervised, Contrastive)}


def replace(config: T, **changes: Any) -> T:
    """`dataclasses.replace` in which a dict changes fields of a nested config:
    `replace(BERT, encoder=dict(layers=2), run=dict(dir="runs/small"))`."""
    for name, value in changes.items():
        if name not in {f.name for f in dataclasses.fields(config)}:  # type: ignore[arg-type]
            raise ValueError(_unknown(name, [f.name for f in dataclasses.fields(config)]))  # type: ignore[arg-type]
        inner = getattr(config, name)
        if isinstance(value, dict) and dataclasses.is_dataclass(inner):
            changes[name] = replace(inner, **value)
        elif isinstance(value, list):
            changes[name] = tuple(value)
    return dataclasses.replace(config, **changes)  # type: ignore[type-var]


def with_tuples(config: T) -> T:
    """The same config, with a tuple for each list that a caller gave, so that it can be hashed."""

    def converted(value: Any) -> Any:
        if dataclasses.is_dataclass(value):
            return with_tuples(value)
        return tuple(map(converted, value)) if isinstance(value, list | tuple) else value

    fields = dataclasses.fields(config)  # type: ignore[arg-type]
    values = {f.name: converted(getattr(config, f.name)) for f in fields}
    return dataclasses.replace(config, **values)  # type: ignore[type-var]


def checked(config: Experiment, source: str = "") -> Experiment:
    """The config as it is read again from the JSON that a run writes: a list becomes a tuple.
    Python does not check the types of a dataclass's fields, and nothing could read the run folder
    of a config with a wrong one.

    ValueError: a value of a wrong type; `source`, such as a file's name, begins the message.
    """
    try:
        return from_dict(Experiment, to_dict(config))
    except ValueError as e:
        raise ValueError(f"{source}: {e}" if source else str(e)) from None


def to_dict(config: Any) -> dict[str, Any]:
    """The config as plain values for JSON. An objective has its class name as `kind`."""
    values: dict[str, Any] = {}
    if isinstance(config, Objective):
        values["kind"] = type(config).__name__
    for f in dataclasses.fields(config):
        value = getattr(config, f.name)
        if dataclasses.is_dataclass(value):
            value = to_dict(value)
        values[f.name] = list(value) if isinstance(value, tuple) else value
    return values


def from_dict(cls: type[T], values: Any, where: str = "") -> T:
    """The inverse of `to_dict`.

    ValueError: an unknown key (the message suggests the nearest field) or a value of a wrong type.
    """
    if not isinstance(values, dict):
        raise ValueError(f"{where.rstrip('.') or 'config'} is {values!r}: expected an object")
    hints = typing.get_type_hints(cls)
    unknown = sorted(set(values) - set(hints))
    if unknown:
        raise ValueError(_unknown(unknown[0], list(hints), where))
    fields = {}
    for name, value in values.items():
        hint = hints[name]
        if hint == Objective:
            value = dict(value) if isinstance(value, dict) else {}
            kind = value.pop("kind", None)
            if not isinstance(kind, str) or kind not in OBJECTIVES:
                known = " or ".join(OBJECTIVES)
                raise ValueError(f"{where}{name}.kind is {kind!r}: expected {known}")
            hint = OBJECTIVES[kind]
        if dataclasses.is_dataclass(hint):
            value = from_dict(hint, value, f"{where}{name}.")  # type: ignore[arg-type]
        elif not _fits(value, hint):
            raise ValueError(f"{where}{name} is {value!r}: expected {_readable(hint)}")
        fields[name] = tuple(value) if isinstance(value, list) else value
    return cls(**fields)


def _unknown(name: str, known: list[str], where: str = "") -> str:
    hint = did_you_mean(name, known, f"expected one of {', '.join(known)}", where)
    return f"unknown config field {where}{name}: {hint}"


def _fits(value: Any, hint: Any) -> bool:
    """Whether a JSON value has a field's type."""
    origin = typing.get_origin(hint)
    if origin is Literal:
        return value in typing.get_args(hint)
    if origin in (Union, types.UnionType):
        return any(_fits(value, h) for h in typing.get_args(hint))
    if origin is tuple:  # a list in JSON
        inner = typing.get_args(hint)[0]
        return isinstance(value, list | tuple) and all(_fits(v, inner) for v in value)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint)


def _readable(hint: Any) -> str:
    if typing.get_origin(hint) is Literal:
        return " or ".join(map(str, typing.get_args(hint)))
    return getattr(hint, "__name__", str(hint)).replace("NoneType", "None")


def save_config(config: Experiment, path: Path) -> None:
    """Write the config as JSON, atomically."""
    io.write_text(path, json.dumps(to_dict(config), indent=2) + "\n")


def read_config(path: Path) -> Experiment:
    """The config in a run folder's or checkpoint's JSON file. ValueError: not readable, or with a
    wrong field."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as e:
        raise ValueError(f"{path} is not a readable config: {e}") from e
    try:
        return from_dict(Experiment, values)
    except ValueError as e:
        raise ValueError(f"{path}: {e}") from None


def from_python_file(path: str | Path) -> Experiment:
    """The `config` of a Python file, or of a shipped one by its name alone, such as bert_base. The
    file is executed.

    ValueError: the file is missing, fails, has no `config`, or one with a value of a wrong type.
    """
    shipped = shipped_configs()
    if not Path(path).is_file():
        if str(path) not in shipped:
            raise ValueError(_no_config_file(Path(path), shipped))
        path = shipped[str(path)]
    try:
        config = runpy.run_path(str(path)).get("config")
    except (Exception, SystemExit) as e:  # the user's code may raise anything, and may exit
        raise ValueError(f"{path} failed to run as a config file: {type(e).__name__}: {e}") from e
    if not isinstance(config, Experiment):
        raise ValueError(f"{path} has no `config = Experiment(...)`")
    return checked(config, str(path))


def _no_config_file(path: Path, shipped: Collection[str]) -> str:
    if path.stem in shipped:  # such as configs/bert_base.py, from another folder
        return f"{path} does not exist: give {path.stem} for the config of that name"
    hint = did_you_mean(path.stem, shipped, "expected a file, or a name such as bert_base")
    return f"{path} does not exist: {hint}"


def differences(a: Any, b: Any, where: str = "") -> dict[str, tuple[Any, Any]]:
    """The fields in which two configs differ: dotted name -> both values."""
    if type(a) is not type(b) or not dataclasses.is_dataclass(a):
        return {} if a == b else {where.rstrip("."): (a, b)}
    out: dict[str, tuple[Any, Any]] = {}
    for f in dataclasses.fields(a):
        out |= differences(getattr(a, f.name), getattr(b, f.name), f"{where}{f.name}.")
    return out
