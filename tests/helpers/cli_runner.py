"""Runs `bert-jax` commands in this process."""

import pytest

from bert_jax.cli import main as cli


def call(*args: object, **flags: object) -> int:
    """The exit status of `bert-jax ARGS FLAGS`; `vocab_size=9` is `--vocab-size 9`, and a switch
    is True."""
    words = [str(a) for a in args]
    for name, value in flags.items():
        words.append(f"--{name.replace('_', '-')}")
        words += [] if value is True else [str(value)]
    with pytest.raises(SystemExit) as e:
        cli.main(words)
    return int(e.value.code or 0)
