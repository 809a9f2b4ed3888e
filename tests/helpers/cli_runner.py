"""Runs `bert-jax` commands in this process."""

import pytest

from bert_jax.cli import main as cli


def call(*args: object) -> int:
    """The exit status of `bert-jax ARGS`."""
    with pytest.raises(SystemExit) as e:
        cli.main([str(a) for a in args])
    return int(e.value.code or 0)
