"""Says that process 0 was lost where the process that saw it cannot say it any more.

When process 0 ends, a thread of jax's aborts every other process, often before one of ours has
spoken. So a child stays beside each of them and is told what to say. Its standard input ends with
its parent; where the parent's line to process 0 has ended too, that is why, and the child says it.
Standard library only, and nothing of bert_jax: the child is this file, run.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time

WAIT = 0.5  # seconds for the line to end, where process 0 ends a little after jax's own connection


class Witness:
    """The child, as its parent has it."""

    def __init__(self, line: socket.socket, says: str) -> None:
        self._child = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__, str(line.fileno())],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            pass_fds=(line.fileno(),),
            start_new_session=True,  # it outlives the signals that end its parent
            text=True,
        )
        self.tell(says)

    def tell(self, says: str) -> None:
        """What to say instead; nothing: the parent has said it, or ends in peace."""
        assert self._child.stdin
        with contextlib.suppress(OSError):  # it may have been killed: then nobody says it
            self._child.stdin.write(says.replace("\n", " ") + "\n")
            self._child.stdin.flush()


def main() -> None:
    line, says = socket.socket(fileno=int(sys.argv[1])), ""
    for told in sys.stdin:
        says = told.rstrip("\n")
    if says and _ended(line):
        print(f"bert-jax: {says}", file=sys.stderr, flush=True)


def _ended(line: socket.socket) -> bool:
    line.settimeout(WAIT)
    until = time.monotonic() + WAIT
    try:
        while time.monotonic() < until:
            if not line.recv(1 << 16):
                return True
    except TimeoutError:
        return False
    except OSError:  # broken
        return True
    return False


if __name__ == "__main__":
    main()
