"""The rendezvous before jax starts: missing processes, differing configs, strangers on the port."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from bert_jax.distributed import rendezvous
from bert_jax.utils.errors import RunError
from tests.helpers.ports import free_port


@pytest.fixture
def port() -> int:
    return free_port()


def find_difference(configs: dict[int, Any]) -> str | None:
    values = list(configs.values())
    return None if values.count(values[0]) == len(values) else f"they differ: {configs}"


def start(port: int, index: int, count: int, wait: float = 20, config: Any = 0) -> Future:
    """`meet` of one process, in a thread."""
    arguments = ("127.0.0.1", port), count, index, config, find_difference, wait
    return ThreadPoolExecutor(1).submit(rendezvous.meet, *arguments)


def connect(port: int, message: bytes) -> socket.socket:
    """A stranger, who connects as soon as the port is open."""
    deadline = time.monotonic() + 20
    while True:
        try:
            connection = socket.create_connection(("127.0.0.1", port), timeout=20)
        except ConnectionRefusedError:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        else:
            connection.sendall(message)
            return connection


def until_closed(f: Callable[[], None]) -> Callable[[], None]:
    """`f` until its socket is closed."""

    def quiet() -> None:
        with contextlib.suppress(OSError):
            f()

    return quiet


def test_processes_that_agree_go_on_and_leave_the_port_free(port: int) -> None:
    for future in [start(port, i, 3) for i in (1, 0, 2)]:
        assert future.result(30) is None
    socket.create_server(("127.0.0.1", port)).close()  # where jax's coordinator listens next


def test_missing_processes_are_named_within_the_timeout(port: int) -> None:
    for future in [start(port, i, 4, wait=2) for i in (0, 2)]:
        with pytest.raises(
            RunError, match=r"2 of 4 processes did not connect in 2 seconds: 1, 3\."
        ):
            future.result(30)


def test_without_process_0_the_others_say_where_they_looked(port: int) -> None:
    with pytest.raises(RunError, match=f"process 0 was not found at 127.0.0.1:{port}"):
        start(port, 1, 2, wait=1).result(30)


def test_differing_configs_are_told_to_all(port: int) -> None:
    for future in [start(port, i, 3, config=i // 2) for i in range(3)]:
        with pytest.raises(ValueError, match=r"they differ: .*2: 1"):
            future.result(30)


def test_two_processes_of_one_index_are_refused(port: int) -> None:
    for future in [start(port, i, 3) for i in (0, 1, 1)]:
        with pytest.raises(
            ValueError, match="process 1 of 3 connected for the second time; expected 3"
        ):
            future.result(30)


def test_another_number_of_processes_is_refused(port: int) -> None:
    for future in [start(port, 0, 3), start(port, 1, 2)]:
        with pytest.raises(ValueError, match="process 1 of 2 connected; expected 3 processes"):
            future.result(30)


def test_a_port_that_is_taken_is_refused(port: int) -> None:
    with (
        socket.create_server(("", port)),
        pytest.raises(ValueError, match="choose another port for --coordinator"),
    ):
        start(port, 0, 2).result(30)


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"GET / HTTP/1.1\n",
        b"[" * 100_000 + b"\n",
        b"[]\n",
        b'{"process": 1}\n',
        b'{"process": 1, "count": 2}\n',
        b'{"process": [1], "count": 2, "config": {}}\n',
        b'{"process": true, "count": 2, "config": {}}\n',
        b'{"process": 7, "count": 2, "config": {}}\n',
    ],
    ids=lambda message: message[:30].decode() or "silence",
)
def test_strangers_are_ignored_and_delay_nobody(
    message: bytes, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who waited for the stranger would find no other process in time."""
    monkeypatch.setattr(rendezvous, "IDENTIFY_TIMEOUT", 60.0)
    host = start(port, 0, 2)
    with connect(port, message):
        assert start(port, 1, 2).result(30) is None
        assert host.result(30) is None


def test_a_peer_must_identify_itself_in_time(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendezvous, "IDENTIFY_TIMEOUT", 0.2)
    host = start(port, 0, 2)
    with connect(port, b'{"process": 1, ') as stranger:
        assert stranger.recv(1) == b""  # closed
        assert start(port, 1, 2).result(30) is None
    assert host.result(30) is None


def test_a_line_without_an_end_is_not_read_to_its_end(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    listen = rendezvous._listen

    def listen_with_small_buffers(port: int) -> socket.socket:
        listener = listen(port)  # its connections inherit the size; the kernel's own grows
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        return listener

    monkeypatch.setattr(rendezvous, "_listen", listen_with_small_buffers)
    host = start(port, 0, 2)
    stranger = connect(port, b"")
    stranger.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)
    sent = []

    def pour() -> None:
        for _ in range(1024):
            stranger.sendall(b" " * (1 << 16))
            sent.append(1 << 16)

    with stranger:
        until_closed(pour)()
        assert start(port, 1, 2).result(30) is None
        assert host.result(30) is None
    # what was read, at most twice the limit (asyncio), and what both buffers hold
    assert sum(sent) <= 3 * rendezvous.MAX_MESSAGE


def test_a_process_that_dies_too_early_may_come_again(port: int) -> None:
    host = start(port, 0, 3)
    with connect(port, b'{"process": 1, "count": 3, "config": 0}\n') as dead:
        dead.shutdown(socket.SHUT_WR)
        assert dead.recv(1) == b""  # process 0 has seen its end
    other = start(port, 2, 3)
    assert start(port, 1, 3).result(30) is None
    assert [host.result(30), other.result(30)] == [None, None]


@pytest.mark.parametrize("answer", [b'{"hello": 1}\n', b"{}\n", b"SSH-2.0\n"], ids=str)
def test_a_stranger_in_the_place_of_process_0_is_asked_a_few_times(answer: bytes) -> None:
    connections = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def reply() -> None:
            while True:
                connection = server.accept()[0]
                connections.append(connection)
                connection.sendall(answer)

        threading.Thread(target=until_closed(reply), daemon=True).start()
        with pytest.raises(RunError, match="process 0 was not found"):
            start(server.getsockname()[1], 1, 2, wait=1).result(30)
    assert 1 <= len(connections) <= 6
