"""What every input owes its reader: it works, or a message to the user; no traceback, no hang,
no more memory than a bound."""

from __future__ import annotations

import contextlib
import resource
import signal
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from bert_jax.cli import main as cli
from bert_jax.utils.errors import RunError, is_full

SECONDS = 10.0  # of processor time for one input
MEMORY = 1 << 30  # bytes of address space for one input, beyond what the process has


class Slow(BaseException):
    """No Exception, so that no reader takes it for damage of its file."""


class Broken(NamedTuple):
    """A broken contract. `kind` is the same for inputs that break it at the same place."""

    kind: str
    trace: str


def breach(use: Callable[[bytes], None], data: bytes, bounded: bool = True) -> Broken | None:
    """Feed one input; what is wrong with how it ended. Where a reader is not `bounded` it may
    ask for more memory than there is, and say so in its message."""
    try:
        with _limits():
            use(data)
    except BaseException as e:  # Rust panics are no Exception
        if isinstance(e, KeyboardInterrupt | SystemExit):
            raise
        full = any(isinstance(cause, MemoryError) for cause in _chain(e))
        if is_told(e) and not (bounded and full):
            return None
        where = " < ".join(
            f"{Path(f.filename).name}:{f.name}"
            for f in traceback.extract_tb(e.__traceback__)[:1:-1]
        )
        return Broken(f"{type(e).__name__} in {where}", "".join(traceback.format_exception(e)))
    return None


def is_told(e: BaseException) -> bool:
    """Whether `cli.main` would end with a message."""
    if isinstance(e, ValueError):
        return cli.raised_by_bert_jax(e)
    if isinstance(e, OSError):
        return cli.is_path_error(e) or is_full(e)
    return isinstance(e, RunError)


def _chain(e: BaseException | None) -> Iterator[BaseException]:
    while e is not None:
        yield e
        e = e.__cause__ or e.__context__


@contextlib.contextmanager
def _limits() -> Iterator[None]:
    def stop(*_: object) -> None:
        raise Slow(f"more than {SECONDS:.0f} s of processor time")

    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    before = signal.signal(signal.SIGVTALRM, stop)
    resource.setrlimit(resource.RLIMIT_AS, (_pages(0) + MEMORY, hard))
    signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        signal.signal(signal.SIGVTALRM, before)


def _pages(column: int) -> int:
    """Bytes: 0 all that is mapped, 1 all that is resident."""
    pages = Path("/proc/self/statm").read_text().split()[column]
    return int(pages) * resource.getpagesize()


class Peak:
    """The most memory, in bytes, that one input took beyond what was resident before it."""

    def __init__(self) -> None:
        self.bytes = 0

    @contextlib.contextmanager
    def measured(self) -> Iterator[None]:
        with contextlib.suppress(OSError):  # where the kernel forbids it the peak is an upper bound
            Path("/proc/self/clear_refs").write_text("5")
        before = _pages(1)
        try:
            yield
        finally:
            status = Path("/proc/self/status").read_text()
            peak = int(status.partition("VmHWM:")[2].split()[0]) * 1024
            self.bytes = max(self.bytes, peak - before)
