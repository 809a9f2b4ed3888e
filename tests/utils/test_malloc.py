"""Freed memory stays with the process, in everything that trains."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks import long_texts, planted_pairs
from benchmarks.two_core_hour.__main__ import main as two_core_hour
from bert_jax.cli.main import main as bert_jax
from bert_jax.utils import malloc
from study import worker_pool
from study.__main__ import main as study
from tests.helpers.paths import ROOT

# Prints the page faults of the second of two equal blocks.
SECOND_BLOCK = """
import ctypes, resource, sys
from bert_jax.utils import malloc
if sys.argv[1] == "tuned":
    malloc.tune()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
for _ in range(2):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = libc.malloc(64 << 20)
    libc.memset(block, 1, 64 << 20)
    libc.free(block)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
GLIBC = "CS_GNU_LIBC_VERSION" in getattr(os, "confstr_names", {})


@pytest.mark.skipif(not GLIBC, reason="the C library is not GNU's")
def test_a_freed_block_is_used_again_without_page_faults() -> None:
    def faults(how: str) -> int:
        command = [sys.executable, "-c", SECOND_BLOCK, how]
        env = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
        return int(subprocess.run(command, env=env, stdout=subprocess.PIPE, check=True).stdout)

    assert 4 * faults("tuned") < faults("default")


class Tuned(Exception):
    """malloc was tuned: the rest is left out."""


def worker(_: list[str]) -> None:
    worker_pool._work(None, [], None, 0, set())  # type: ignore[arg-type]


def script(main: Callable[[], Any]) -> Callable[[list[str]], Any]:
    def run(argv: list[str]) -> None:
        sys.argv = ["script", *argv]
        main()

    return run


@pytest.mark.parametrize(
    ("main", "argv"),
    [
        pytest.param(bert_jax, ["pretrain", "tiny_bert"], id="pretrain"),
        pytest.param(
            bert_jax,
            ["finetune", "finetune", "--init", "m", "--task", "qa", "--data", "d"],
            id="finetune",
        ),
        pytest.param(bert_jax, ["bench", "tiny_bert"], id="bench"),
        pytest.param(study, ["--list"], id="study"),
        pytest.param(worker, [], id="a worker of the study"),
        pytest.param(two_core_hour, ["--table"], id="two_core_hour"),
        pytest.param(script(long_texts.main), ["--out", "out"], id="long_texts"),
        pytest.param(script(planted_pairs.main), ["--out", "out"], id="planted_pairs"),
    ],
)
def test_malloc_is_tuned_before_anything_trains(
    main: Callable[[list[str]], Any],
    argv: list[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    def tune() -> None:
        raise Tuned

    monkeypatch.setattr(malloc, "tune", tune)
    monkeypatch.setattr(sys, "argv", sys.argv)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Tuned):
        main(argv)
    assert not list(tmp_path.iterdir())
