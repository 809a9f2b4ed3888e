"""Processes find each other, whoever else finds the port, and hear why not."""

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from bert_jax.distributed import rendezvous
from bert_jax.distributed.initialize import ProcessInfo
from bert_jax.utils.errors import RunError

HELLO = b'{"process": 1, "count": 3, "asked": {}}\n'


@pytest.fixture
def port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def start(port: int, number: int, count: int, wait: float = 20) -> Future:
    place = ProcessInfo(f"127.0.0.1:{port}", count, number)
    meet = rendezvous._visit if number else rendezvous._host
    until = time.monotonic() + wait
    return ThreadPoolExecutor(1).submit(meet, place, {}, lambda told: None, until, wait)


def connect(port: int, said: bytes) -> socket.socket:
    """Whoever finds the port, as soon as it is open."""
    until = time.monotonic() + 20
    while True:
        try:
            made = socket.create_connection(("127.0.0.1", port), timeout=20)
        except ConnectionRefusedError:
            assert time.monotonic() < until
            time.sleep(0.05)
        else:
            made.sendall(said)
            return made


def swallow(f: Callable[[], None]) -> Callable[[], None]:
    """`f` until its socket is closed."""

    def quiet() -> None:
        with contextlib.suppress(OSError):
            f()

    return quiet


@pytest.mark.parametrize(
    "said",
    [
        b"GET / HTTP/1.1\n",
        b"[" * 100_000 + b"\n",
        b'{"process": 1}\n',
        b'{"process": 1, "count": 2}\n',
        b'{"process": [1], "count": 2, "asked": {}}\n',
        b'{"process": true, "count": 2, "asked": {}}\n',
        b'{"process": 7, "count": 2, "asked": {}}\n',
    ],
    ids=lambda said: said[:30].decode(),
)
def test_strangers_are_passed_over(said: bytes, port: int) -> None:
    host = start(port, 0, 2)
    with connect(port, said):
        assert start(port, 1, 2).result(30).keys() == {0}
    assert host.result(30).keys() == {1}


def test_a_line_that_does_not_end_is_not_read_to_its_end() -> None:
    ours, theirs = socket.socketpair()
    sent = []

    def pour() -> None:
        with theirs:
            for _ in range(1024):
                theirs.sendall(b" " * (1 << 16))
                sent.append(1 << 16)
            theirs.sendall(b"{}\n")

    threading.Thread(target=swallow(pour), daemon=True).start()
    with ours:
        assert rendezvous.Line(ours).receive() is None
    assert sum(sent) <= 4 * rendezvous.LONGEST


def test_two_of_the_same_number_both_hear_that(port: int) -> None:
    started = [start(port, i, 3) for i in (0, 1, 1)]
    for one in started:
        with pytest.raises(ValueError, match="process 1 of 3 came, for the second time where 3"):
            one.result(30)


def test_who_died_before_all_had_come_does_not_keep_the_others_waiting(port: int) -> None:
    """Its line is kept, where `Lines` finds it broken."""
    host = start(port, 0, 3)
    dead = connect(port, HELLO)
    time.sleep(0.5)
    dead.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    dead.close()  # at once, so that sending to it fails
    assert start(port, 2, 3).result(30).keys() == {0}
    assert host.result(30).keys() == {1, 2}


@pytest.mark.parametrize("answer", [b'{"hello": 1}\n', b"{}\n", b"SSH-2.0\n"], ids=str)
def test_a_stranger_in_the_place_of_process_0_is_asked_now_and_then(answer: bytes) -> None:
    asked = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def reply() -> None:
            while True:
                line = server.accept()[0]
                asked.append(line)
                line.sendall(answer)

        threading.Thread(target=swallow(reply), daemon=True).start()
        with pytest.raises(RunError, match="process 0 was not found"):
            start(server.getsockname()[1], 1, 2, wait=1).result(30)
    assert 1 <= len(asked) <= 6
