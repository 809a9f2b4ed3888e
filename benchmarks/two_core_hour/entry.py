"""What an entry says: the config of its pre-training, its tokenizer and its rows."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bert_jax.config import Experiment

ENTRIES = Path(__file__).parent / "entries"


@dataclass(frozen=True)
class Entry:
    """A recipe. `run.steps` follows from the budget, so the schedule must not name steps that
    depend on it: use `optim.warmup_ratio` and `optim.cooldown_ratio`."""

    title: str
    config: Experiment
    tokenizer: Literal["wordpiece", "unigram", "bpe"] = "wordpiece"
    vocab_size: int = 4000
    segments: str = "nsp"  # of `prepare`
    lengths: tuple[int, ...] = (64,)  # of rows: several with `data.stages`


def names() -> list[str]:
    """The entries of this repository."""
    return sorted(path.stem for path in ENTRIES.glob("*.py"))


def load(name: str) -> Entry:
    """The entry of this name, or of a Python file that defines `entry`.

    ValueError: there is no such entry, or the file defines none.
    """
    file = Path(name) if name.endswith(".py") else ENTRIES / f"{name}.py"
    if not file.is_file():
        raise ValueError(
            f"there is no entry {name!r}: expected {', '.join(names())}, or a Python file that "
            "defines `entry`"
        )
    spec = importlib.util.spec_from_file_location(f"entry_{file.stem}", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    entry = getattr(module, "entry", None)
    if not isinstance(entry, Entry):
        raise ValueError(f"{file} defines no `entry`: expected entry = Entry(...)")
    return entry
