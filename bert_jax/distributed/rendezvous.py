"""A short rendezvous before jax starts. It names missing processes and differing configs.

Without it jax reports a missing process as DEADLINE_EXCEEDED and does not say which one. Each
process connects to process 0 at the coordinator's address. A message is one line of JSON:

    process i -> process 0    {"process": i, "count": n, "config": ...}
    process 0 -> process i    {"error": null} or {"error": "...", "timeout": true | false}

Process 0 answers when all processes have come, or the time is up. By then it has closed the port,
so that jax's coordinator can listen there.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import time
from collections.abc import Callable
from typing import Any

from bert_jax.utils.errors import RunError

IDENTIFY_TIMEOUT = 10.0  # seconds for a peer to say who it is
MAX_MESSAGE = 1 << 20  # bytes; a config has some thousands
RETRY = 0.2  # seconds between attempts to reach process 0

Address = tuple[str, int]
Compare = Callable[[dict[int, Any]], str | None]  # {process: config} -> how they differ


def meet(
    address: Address, count: int, index: int, config: Any, compare: Compare, wait: float
) -> None:
    """Return when all `count` processes have come and `compare` finds no difference.

    Raise ValueError with the difference, or RunError after `wait` seconds with the missing
    processes. All processes that came raise the same error.
    """
    if index == 0:
        answer = asyncio.run(_serve(_listen(address[1]), count, config, compare, wait))
    else:
        answer = _visit(address, {"process": index, "count": count, "config": config}, wait)
    if answer["error"]:
        raise (RunError if answer["timeout"] else ValueError)(answer["error"])


def _listen(port: int) -> socket.socket:
    dual = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if dual else socket.AF_INET
    try:
        return socket.create_server(("", port), family=family, dualstack_ipv6=dual)
    except OSError as e:
        raise ValueError(
            f"process 0 cannot listen at port {port} ({e.strerror}): "
            "choose another port for --coordinator"
        ) from e


async def _serve(
    listener: socket.socket, count: int, config: Any, compare: Compare, wait: float
) -> dict[str, Any]:
    """Process 0: collect the configs of all processes; return the answer that all get."""
    configs = {0: config}
    writers: set[asyncio.StreamWriter] = set()
    complete: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def register(index: int, peer_count: int, peer_config: Any) -> None:
        if peer_count != count or index in configs:
            again = " for the second time" if index in configs else ""
            error = f"process {index} of {peer_count} connected{again}; expected {count} processes"
            complete.set_exception(ValueError(error))
            return
        configs[index] = peer_config
        if len(configs) == count:
            complete.set_result(None)

    async def receive(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        index = -1
        writers.add(writer)
        with contextlib.suppress(OSError, ValueError):  # a broken connection, or a stranger
            line = await asyncio.wait_for(reader.readline(), IDENTIFY_TIMEOUT)
            index, *request = _parse(line)
            if not complete.done():
                register(index, *request)
            await reader.readline()  # until it ends
        if not complete.done():  # it ended too early, and may come again
            configs.pop(index, None)
            writers.discard(writer)
            writer.close()

    server = await asyncio.start_server(receive, sock=listener, limit=MAX_MESSAGE, backlog=1024)
    answer = {"error": None, "timeout": False}
    try:
        await asyncio.wait_for(complete, wait)
        answer["error"] = compare(configs)
    except TimeoutError:
        answer = {"error": _describe_missing(count, configs, wait), "timeout": True}
    except ValueError as e:
        answer["error"] = str(e)
    server.close()
    for writer in writers:
        writer.write(_line(answer))
        writer.close()
    await asyncio.gather(*(w.wait_closed() for w in writers), return_exceptions=True)
    return answer


def _visit(address: Address, request: dict[str, Any], wait: float) -> dict[str, Any]:
    """Another process: find process 0; return its answer."""
    deadline = time.monotonic() + wait
    while (left := deadline - time.monotonic()) > 0:
        with contextlib.suppress(OSError, ValueError, RecursionError):  # not there, or a stranger
            with socket.create_connection(address, timeout=left) as connection:
                connection.sendall(_line(request))
                connection.settimeout(left + 5)  # process 0 names who is missing
                answer = json.loads(connection.makefile("rb").readline(MAX_MESSAGE))
            if isinstance(answer, dict) and "error" in answer:
                return {"timeout": False, **answer}
        time.sleep(RETRY)
    error = (
        f"process 0 was not found at {address[0]}:{address[1]} in {wait:g} seconds: start it, "
        "and check that its address is right and can be reached"
    )
    return {"error": error, "timeout": True}


def _parse(line: bytes) -> tuple[int, int, Any]:
    """Return index, count and config. Raise ValueError if the line is none of our requests."""
    try:
        message = json.loads(line)
        index, count, config = (message[key] for key in ("process", "count", "config"))
    except (TypeError, KeyError, RecursionError) as e:
        raise ValueError("not a request") from e
    if type(index) is not int or type(count) is not int or not 0 < index < count:
        raise ValueError("not a process")
    return index, count, config


def _describe_missing(count: int, configs: dict[int, Any], wait: float) -> str:
    missing = [str(i) for i in range(count) if i not in configs]
    numbers = ", ".join(missing[:20]) + (", ..." if len(missing) > 20 else "")
    return (
        f"{len(missing)} of {count} processes did not connect in {wait:g} seconds: {numbers}. "
        "Look at their logs, or wait longer with --wait"
    )


def _line(message: dict[str, Any]) -> bytes:
    return json.dumps(message).encode() + b"\n"
