"""Log lines of a command: one handler on standard error, which leaves progress bars whole."""

from __future__ import annotations

import logging
import sys

# Libraries whose errors bert_jax catches and reports in its own words.
QUIET_LIBRARIES = ("absl", "asyncio", "gcsfs")


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        """The message, after its level where it is a warning or an error."""
        level = "" if record.levelno <= logging.INFO else f"{record.levelname.lower()}: "
        return level + super().format(record)


class _StderrHandler(logging.Handler):
    """Writes to the `sys.stderr` of the moment, above a tqdm bar if one is drawn."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record)
            tqdm = sys.modules.get("tqdm")  # without it there is no bar
            if tqdm is None:
                print(line, file=sys.stderr)
            else:
                tqdm.tqdm.write(line, file=sys.stderr)
            sys.stderr.flush()
        except Exception:
            self.handleError(record)


_HANDLER = _StderrHandler()
_HANDLER.setFormatter(_Formatter())


def configure() -> None:
    """Show what bert_jax logs, from INFO on, and the warnings of other libraries. A second call
    changes nothing."""
    root = logging.getLogger()
    # Orbax's imports log a line, for which `logging` makes a handler: each line would come twice
    for handler in [h for h in root.handlers if _is_default(h)]:
        root.removeHandler(handler)
    if _HANDLER not in root.handlers:
        root.addHandler(_HANDLER)
    _HANDLER.setLevel(logging.NOTSET)
    logging.getLogger("bert_jax").setLevel(logging.INFO)
    for name in QUIET_LIBRARIES:
        logging.getLogger(name).setLevel(logging.CRITICAL)


def _is_default(handler: logging.Handler) -> bool:
    """Whether it is like the one that `logging` makes for a line if there is none."""
    return type(handler) is logging.StreamHandler and handler.stream in (
        sys.stderr,
        sys.__stderr__,
    )


def show_errors_only() -> None:
    """For the processes of a run other than the first, whose lines would repeat its own."""
    _HANDLER.setLevel(logging.ERROR)
