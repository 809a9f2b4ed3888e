"""Ports for servers of tests."""

import contextlib
import random
import socket

# Below those that Linux gives to connections, one of which could take the port before it is used.
PORTS = range(20_000, 30_000)


def free_port() -> int:
    """A port that nobody listens at now. OSError: none was found."""
    for port in random.SystemRandom().sample(PORTS, 50):
        with contextlib.suppress(OSError), socket.socket() as s:
            s.bind(("", port))
            return port
    raise OSError("no free port")
