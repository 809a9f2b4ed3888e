"""A witness speaks where process 0 and its parent ended without a word, and only there."""

import socket
import subprocess
import sys

import pytest

PARENT = """
import os, socket, sys
from bert_jax.distributed.witness import Witness
witness = Witness(socket.socket(fileno=int(sys.argv[1])), "process 0 was lost")
for said in sys.argv[2:]:
    witness.tell(said)
os.abort()
"""


@pytest.mark.parametrize(
    ("first_is_lost", "told", "says"),
    [
        (True, [], "bert-jax: process 0 was lost\n"),
        (True, ["process 0 ended: why"], "bert-jax: process 0 ended: why\n"),
        (True, ["process 0 ended: why", ""], ""),  # the parent has said it
        (False, [], ""),  # the parent was killed by itself
    ],
)
def test_it_speaks_where_both_ended(first_is_lost: bool, told: list[str], says: str) -> None:
    first, line = socket.socketpair()
    with first, line:
        parent = subprocess.Popen(
            [sys.executable, "-c", PARENT, str(line.fileno()), *told],
            pass_fds=(line.fileno(),),
            stderr=subprocess.PIPE,
            text=True,
        )
        first.sendall(b"{}\n")  # a sign of life, not yet read
        if first_is_lost:
            first.close()
        assert parent.communicate(timeout=60)[1] == says
