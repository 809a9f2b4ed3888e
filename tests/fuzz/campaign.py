"""One engine in one process: every target in a fork of its own, which an input may kill.

    python -m tests.fuzz.campaign ENGINE SEED FOLDER TARGET:N ...

Each target gets a folder with `report.json` and the smallest input of each kind that broke the
contract. `input` there is the one that is being read, for the case that the process dies of it.
Engines: hypothesis mutates valid files by their structure (mutate.py), atheris any bytes towards
new lines of bert_jax.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

HANG = 120.0  # seconds in one input after which the process ends with a stack

Feed = Callable[[bytes], None]


class Tally:
    """Counts and failures of the inputs so far."""

    def __init__(self, name: str, folder: Path, scratch: Path) -> None:
        from . import contract
        from .targets import TARGETS

        self.target, self.folder, self.scratch = TARGETS[name], folder, scratch
        self.breach = contract.breach
        self.peak = contract.Peak()
        self.inputs, self.slowest = 0, 0.0
        self.broken: dict[str, dict[str, Any]] = {}

    def feed(self, data: bytes) -> None:
        (self.folder / "input").write_bytes(data)
        faulthandler.dump_traceback_later(HANG, exit=True)
        begin = time.process_time()
        with self.peak.measured():
            broken = self.breach(
                lambda content: self.target.feed(self.scratch, content), data, self.target.bounded
            )
        self.slowest = max(self.slowest, time.process_time() - begin)
        self.inputs += 1
        if self.inputs % 100 == 0:
            self.write("count.json")
        if broken is not None:
            self._keep(broken.kind, broken.trace, data)

    def _keep(self, kind: str, trace: str, data: bytes) -> None:
        before = self.broken.get(kind)
        if before is not None:
            before["times"] += 1
            if before["size"] <= len(data):
                return
        name = before["file"] if before else f"broken-{len(self.broken)}"
        times = before["times"] if before else 1
        self.broken[kind] = {"times": times, "size": len(data), "file": name, "trace": trace}
        (self.folder / name).write_bytes(data)

    def write(self, name: str = "report.json") -> None:
        report = {
            "inputs": self.inputs,
            "slowest_ms": 1000 * self.slowest,
            "peak_mb": self.peak.bytes / 1e6,
            "broken": self.broken,
        }
        (self.folder / name).write_text(json.dumps(report))


def by_hypothesis(tally: Tally, n: int, seed: int) -> None:
    import hypothesis

    from .mutate import inputs

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=n,
        database=None,
        deadline=None,
        phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(inputs(tally.target))
    def run(data: bytes) -> None:
        tally.feed(data)

    run()
    tally.write()


def by_atheris(tally: Tally, n: int, seed: int) -> None:
    import atheris

    corpus = tally.folder / "corpus"
    corpus.mkdir(exist_ok=True)
    for number, data in enumerate(tally.target.inputs()):
        (corpus / f"seed-{number}").write_bytes(data)

    def run(data: bytes) -> None:
        tally.feed(data)
        if tally.inputs >= n:  # libFuzzer would end the process without a word to us
            tally.write()
            os._exit(0)

    options = ["-max_len=16384", "-timeout=0", "-rss_limit_mb=0", "-verbosity=0"]
    options += [f"-seed={seed % (1 << 31)}", f"-artifact_prefix={tally.folder}/"]
    atheris.Setup([sys.argv[0], *options, str(corpus)], run)
    atheris.Fuzz()


ENGINES = {"hypothesis": by_hypothesis, "atheris": by_atheris}


def main() -> None:
    engine, seed, folder, *jobs = sys.argv[1:]
    if engine == "atheris":
        import atheris

        # what others wrote has its own fuzzers, and would drown out our own lines
        with atheris.instrument_imports(include=["bert_jax"]):
            import_readers()
    import_readers()
    for job in jobs:
        name, _, n = job.partition(":")
        here = Path(folder) / f"{name}-{engine}"
        here.mkdir(parents=True)
        done, turn = 0, 0
        while done < int(n) and turn < 20:  # a process that an input kills is begun again
            turn += 1
            part = here / str(turn)
            part.mkdir()
            done += _forked(name, engine, int(n) - done, int(seed) + turn, part)


def _forked(name: str, engine: str, n: int, seed: int, folder: Path) -> int:
    """How many inputs were read."""
    child = os.fork()
    if not child:
        try:
            _child(name, engine, n, seed, folder)
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(70)
    _, status = os.waitpid(child, 0)
    if not (folder / "report.json").is_file():
        status = os.waitstatus_to_exitcode(status)
        tally = json.loads((folder / "count.json").read_text())
        kind = f"the process ended with status {status}"
        died = {"times": 1, "file": "input", "trace": ""}
        tally["broken"][kind] = died
        (folder / "report.json").write_text(json.dumps(tally))
    return json.loads((folder / "report.json").read_text())["inputs"]


def _child(name: str, engine: str, n: int, seed: int, folder: Path) -> None:
    log = os.open(folder / "stderr", os.O_WRONLY | os.O_CREAT)
    os.dup2(log, 2)
    with tempfile.TemporaryDirectory(prefix="fuzz-") as scratch:
        tally = Tally(name, folder, Path(scratch))
        for data in tally.target.inputs():  # imports, and caches, are nobody's peak
            with contextlib.suppress(Exception):
                tally.target.feed(Path(scratch), data)
        tally.write("count.json")
        ENGINES[engine](tally, n, seed)


def import_readers() -> None:
    """All at once, before the forks; what they import late, too."""
    import pyarrow.parquet  # noqa: F401
    import scipy.stats  # noqa: F401
    import seqeval.metrics  # noqa: F401
    import sklearn.metrics  # noqa: F401
    import zstandard  # noqa: F401

    from . import mutate, targets  # noqa: F401


if __name__ == "__main__":
    main()
