"""Where processes meet before they work together, and the lines that tell when one is lost.

Each connects to process 0 and says who it is and what it was asked; when all have come and agree,
all go on. The connections stay open:

    process i -> 0 -> all     {"error": i, "text": ...}   i ends by itself, and why
                              {"lost": i}                 i's connection broke, or fell silent
                              {"bye": i}                  i is done, as all are
                              {}                          still here

Standard library only: a message is a line of JSON.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NoReturn, Protocol

from bert_jax.distributed.witness import Witness
from bert_jax.utils.errors import RunError

PING = 5.0  # seconds between signs of life
SILENT = 90.0  # after so many without one a process is lost
LONGEST = 1 << 20  # bytes of a message; a config has some thousands
GRACE = 3.0  # for a process to say its own error before it is ended for another's
AGAIN = "Start all of them again: the run goes on from its last checkpoint"


class Place(Protocol):
    @property
    def coordinator(self) -> str: ...
    @property
    def count(self) -> int: ...
    @property
    def number(self) -> int: ...


Told = dict[int, Any]  # process -> what it was asked


@contextlib.contextmanager
def join(
    place: Place, asked: Any, compare: Callable[[Told], str | None], wait: float
) -> Iterator[None]:
    """Meet, and watch over the block. ValueError: what `compare` finds wrong. Failure: somebody
    did not come in `wait` seconds, or was lost while the block failed."""
    meet = _host if place.number == 0 else _visit
    lines = Lines(place, meet(place, asked, compare, time.monotonic() + wait, wait))
    try:
        yield
    except BaseException as e:
        why = lines.end(e)
        if why is not None and isinstance(e, Exception):
            raise RunError(why) from e
        raise
    lines.end(None)


# ---- before


def _host(
    place: Place, asked: Any, compare: Callable[[Told], str | None], until: float, wait: float
) -> dict[int, Line]:
    """Process 0: wait for the others, compare, let them go on or tell them why not."""
    told, lines = {0: asked}, {}
    with _listen(place) as server:
        while len(told) < place.count:
            server.settimeout(max(until - time.monotonic(), 0.01))
            came = _accept(server)
            if time.monotonic() > until:
                _refuse(lines.values(), _absent(place, told, wait), late=True)
            if came is None:
                continue
            line, number, count, theirs = came
            if count != place.count or number in told:
                again = ", for the second time" if number in told else ""
                why = f"process {number} of {count} came{again} where {place.count} were expected"
                _refuse([*lines.values(), line], why)
            lines[number], told[number] = line, theirs
    wrong = compare(told)
    if wrong:
        _refuse(lines.values(), wrong)
    for line in lines.values():
        with contextlib.suppress(OSError):  # of one that died: `Lines` hears it, and tells all
            line.send({"go": True})
    return lines


def _accept(server: socket.socket) -> tuple[Line, int, int, Any] | None:
    """Who connects: number, of how many, and what it was asked. None: nobody in time, one who hung
    up, or no process of ours, since anybody may find the port."""
    try:
        line = Line(server.accept()[0])
        line.socket.settimeout(10)  # who connects says who he is at once
        said = line.receive() or {}
    except OSError:
        return None
    i, n = said.get("process"), said.get("count")
    if type(i) is int and type(n) is int and 0 < i < n and "asked" in said:
        return line, i, n, said["asked"]
    return None


def _visit(
    place: Place, asked: Any, compare: Callable[[Told], str | None], until: float, wait: float
) -> dict[int, Line]:
    """Another process: find process 0, and hear what it says."""
    host, _, port = place.coordinator.rpartition(":")
    while True:
        left = until - time.monotonic()
        if left <= 0:
            raise RunError(
                f"process 0 was not found at {place.coordinator} in {wait:g} seconds: start it, "
                "or look whether its address is right and can be reached"
            )
        try:
            line = Line(socket.create_connection((host.strip("[]"), int(port)), timeout=left))
            line.send({"process": place.number, "count": place.count, "asked": asked})
            line.socket.settimeout(left + 5)  # process 0 names who is missing
            said = line.receive() or {}
            if said.get("go"):
                return {0: line}
        except OSError:  # not there yet
            said = {}
        if "refused" in said:
            raise (RunError if said.get("late") else ValueError)(said["refused"])
        time.sleep(min(0.2, left))


def _listen(place: Place) -> socket.socket:
    port = int(place.coordinator.rpartition(":")[2])
    try:
        if socket.has_dualstack_ipv6():
            return socket.create_server(
                ("", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=1024
            )
        return socket.create_server(("", port), backlog=1024)
    except OSError as e:
        raise ValueError(
            f"process 0 cannot listen at {place.coordinator} ({e.strerror}): "
            "choose another port for --coordinator"
        ) from e


def _absent(place: Place, told: Told, wait: float) -> str:
    missing = [str(i) for i in range(place.count) if i not in told]
    some = ", ".join(missing[:20]) + (", ..." if len(missing) > 20 else "")
    return (
        f"{len(missing)} of {place.count} processes did not come to {place.coordinator} in "
        f"{wait:g} seconds: {some}. Look at what these say, or wait longer with --wait"
    )


def _refuse(lines: Iterable[Line], why: str, late: bool = False) -> NoReturn:
    for line in lines:
        with contextlib.suppress(OSError):
            line.send({"refused": why, "late": late})
    raise RunError(why) if late else ValueError(why)


# ---- while they work


class Line:
    """A connection that carries lines of JSON."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.heard = time.monotonic()
        self._rest = b""
        self._sending = threading.Lock()

    def send(self, message: dict[str, Any]) -> None:
        with self._sending:
            self.socket.sendall(json.dumps(message).encode() + b"\n")

    def receive(self) -> dict[str, Any] | None:
        """The next message; None at the end, or where it is no message of ours."""
        while b"\n" not in self._rest:
            got = self.socket.recv(1 << 16)
            if not got or len(self._rest) > LONGEST:
                return None
            self._rest += got
        first, _, self._rest = self._rest.partition(b"\n")
        self.heard = time.monotonic()
        try:
            said = json.loads(first)
        except (ValueError, RecursionError):
            return None
        return said if isinstance(said, dict) else None

    @property
    def more(self) -> bool:
        return b"\n" in self._rest


class Lines:
    """The open lines of one process, and the thread that listens to them."""

    def __init__(self, place: Place, lines: dict[int, Line]) -> None:
        self._place, self._lines = place, lines
        self._left: set[int] = set()  # said goodbye
        self._errors: dict[int, str] = {}
        self._lost: list[int] = []
        self._news, self._ending = threading.Event(), threading.Event()
        self._witness: Witness | None = None
        for line in lines.values():
            line.socket.settimeout(PING)
        if place.number:
            lost = f"process 0 of {place.count} was lost. {AGAIN}"
            self._witness = Witness(lines[0].socket, lost)
        threading.Thread(target=self._listen, daemon=True).start()

    def end(self, e: BaseException | None) -> str | None:
        """Tell the others; returns what happened to one of them, where that is why this one
        fails: jax names no process."""
        me = self._place.number
        if e is None:
            self._tell({"bye": me})
            self._ending.set()
            self._say("")
            return None
        with contextlib.suppress(Exception):  # a line may be broken, or the error be cut
            self._tell({"error": me, "text": (str(e).splitlines() or [""])[0][:300]})
        self._news.wait(GRACE - 1)
        self._ending.set()
        if 0 in self._lost:
            time.sleep(GRACE)  # in which `_follow` ends this process
        self._say("")
        return self._why() if self._lost else None

    def _listen(self) -> None:
        with selectors.DefaultSelector() as selector:
            for i, line in self._lines.items():
                selector.register(line.socket, selectors.EVENT_READ, i)
            spoke = time.monotonic()
            while selector.get_map():
                for key, _ in selector.select(PING):
                    if not self._hear(key.data):
                        selector.unregister(key.fileobj)
                now = time.monotonic()
                if now - spoke > PING:
                    spoke = now
                    self._tell({})
                for key in list(selector.get_map().values()):
                    if now - self._lines[key.data].heard > SILENT:
                        selector.unregister(key.fileobj)
                        self._note({"lost": key.data})

    def _hear(self, i: int) -> bool:
        """Take in what came on a line; False where it ended."""
        line = self._lines[i]
        while True:
            try:
                said = line.receive()
            except OSError:
                said = None
            if said is None:
                if i not in self._left and i not in self._errors:
                    self._note({"lost": i})
                return False
            self._note(said)
            if not line.more:
                return True

    def _note(self, said: dict[str, Any]) -> None:
        if not said:
            return
        if self._place.number == 0:
            self._tell(said)
        if "bye" in said:
            self._left.add(said["bye"])
            return
        if said.get("error", said.get("lost")) == self._place.number:
            return  # our own, told back
        if "error" in said:
            self._errors[said["error"]] = said["text"]
        else:
            self._lost.append(said["lost"])
        self._say(self._why())
        if not self._news.is_set():
            self._news.set()
            threading.Thread(target=self._follow, daemon=True).start()

    def _follow(self) -> None:
        """End this process for the loss of another, unless it is ending by itself. Where process
        0 is lost jax aborts at once, and may be first: then the witness says it."""
        if 0 in self._lost or not self._ending.wait(GRACE):
            print(f"bert-jax: {self._why()}", file=sys.stderr, flush=True)
            self._say("")
            os._exit(1)

    def _why(self) -> str:
        count = self._place.count
        if self._lost:
            what = f"process {self._lost[0]} of {count} was lost"
        else:
            first, text = next(iter(self._errors.items()))
            what = f"process {first} of {count} ended: {text}"
        return f"{what}. {AGAIN}"

    def _say(self, last: str) -> None:
        if self._witness:
            self._witness.tell(last)

    def _tell(self, message: dict[str, Any]) -> None:
        for line in self._lines.values():
            with contextlib.suppress(OSError):
                line.send(message)
