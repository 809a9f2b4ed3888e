"""The error that ends a command with status 1 and a message; hints in messages."""

import difflib
import errno
import os
from collections.abc import Iterable


class RunError(RuntimeError):
    """A run cannot continue, by neither the user's input nor a bug: the disk is full, or updates
    stay non-finite. The message says what happened, what is safe and what to do."""


class LockLost(RunError):
    """Another run has taken the run directory over, and writes there now."""


def first_line(e: BaseException) -> str:
    """The first line of an exception's text, or the name of its type if it has none."""
    return str(e).strip().splitlines()[0] if str(e).strip() else type(e).__name__


def with_type(e: BaseException) -> str:
    """The type of an exception and the first line of its text, at most 200 characters of it; the
    type alone if it has no text."""
    name = type(e).__name__
    return f"{name}: {first_line(e):.200}" if str(e).strip() else name


OUT_OF_MEMORY = "RESOURCE_EXHAUSTED"  # how jax's error begins when a device's memory is full
FULL = (errno.ENOSPC, errno.EDQUOT)  # errno of an OSError that is no bug either


def is_full(e: BaseException) -> bool:
    """Whether a disk is full. Libraries that write files in C++ or Rust raise errors of their own,
    of which only the text says it."""
    if isinstance(e, OSError) and e.errno is not None:
        return e.errno in FULL
    return any(os.strerror(number) in str(e) for number in FULL)


def did_you_mean(name: str, known: Iterable[str], otherwise: str, prefix: str = "") -> str:
    """A hint about an unknown `name`: the most similar known one after `prefix`, or `otherwise`."""
    similar = difflib.get_close_matches(name, known, 1)
    return f"did you mean {prefix}{similar[0]}?" if similar else otherwise
