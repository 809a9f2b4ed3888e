"""Kill runs at random moments and resume them until they are done: the result equals that of an
undisturbed run bit by bit, in parameters, optimizer, guard and every metric but the throughput.

    python -m tests.chaos.kill [--kills 100] [--stops 10] [--seed 0] [--families bert,...]
"""

from __future__ import annotations

import argparse
import collections
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from tests.chaos import runs

PHASES = ("start-up", "restore", "compile", "steps", "save", "manifest")
STOPPED = (128 + signal.SIGTERM, 128 + signal.SIGINT, -signal.SIGTERM, -signal.SIGINT)
Hits = collections.Counter[str]


class Failed(Exception):
    """A run did what it must not; the message has its stderr."""


class Family(NamedTuple):
    root: Path
    name: str
    corpus: Path
    undisturbed: Path  # the run to compare with
    processes: int  # of each run
    seconds: float  # from its start to its first step

    def start(self, run: Path) -> runs.Process:
        commands = runs.pretrain(self.name, self.corpus, run, self.processes)
        return runs.Process(commands, run, runs.environment(self.root))


def run_undisturbed(root: Path, name: str, processes: int) -> Family:
    run = root / f"{name}-undisturbed"
    family = Family(root, name, runs.prepare(root, name), run, processes, 0.0)
    for _ in range(2):  # the second run finds everything in the compilation cache
        shutil.rmtree(family.undisturbed, ignore_errors=True)
        process = family.start(family.undisturbed)
        process.wait_for(lambda p=process: p.logged(1))
        family = family._replace(seconds=time.monotonic() - process.started)
        finish(process)
    return family


def finish(process: runs.Process) -> None:
    if process.status() != 0:
        raise Failed(f"{process.run} ended with status {process.status()}: {process.stderr()}")


def kill(process: runs.Process, rng: random.Random) -> str:
    """Send SIGKILL to one process of the run; returns the phase that it hit."""
    if not process.kill(rng):
        raise Failed(f"{process.run} ended with status {process.status()}: {process.stderr()}")
    return process.phase()


def stop(process: runs.Process, rng: random.Random) -> str:
    """Send SIGTERM, and half of the time a second signal soon after; returns the phase that the
    first one hit."""
    phase = process.phase()
    process.send(signal.SIGTERM)
    again = rng.random() < 0.5 and process.wait_for(lambda: True, rng.uniform(0.0, 1.5))
    if again:
        process.send(signal.SIGINT)
    if process.status() not in STOPPED:
        raise Failed(f"{process.run} ended with status {process.status()}: {process.stderr()}")
    saved = process.status() == 128 + signal.SIGTERM and not again
    if saved and not (process.run / f"checkpoints/{runs.last_step(process.run)}").is_dir():
        raise Failed(f"{process.run} ended by SIGTERM and did not save its last step")
    return phase


def disturb(
    family: Family,
    times: int,
    rng: random.Random,
    end: Callable[[runs.Process, random.Random], str],
) -> Hits:
    """Kill or stop runs `times` times in all, and compare each run when it is done."""
    hits: Hits = collections.Counter()
    number = 0
    while hits.total() < times:
        number += 1
        run, done = family.root / f"{family.name}-{end.__name__}-{number}", False
        while not done:
            process = family.start(run)
            if hits.total() < times and runs.moment(rng, process, family.seconds):
                hits[end(process, rng)] += 1
            else:
                finish(process)
                done = True
            if process.newest and process.started_anew():
                raise Failed(f"{run} started anew although step {process.newest} was saved")
        differences = runs.differences(run, family.undisturbed)
        if differences:
            listed = ", ".join(differences[:5])
            raise Failed(f"{run} differs from an undisturbed run: {listed}")
        print(f"{run.name} equals an undisturbed run; {hits.total()} of {times}", flush=True)
    return hits


def share_of(n: int, i: int, parts: int) -> int:
    """The i-th of `parts` integers that add up to n."""
    return n * (i + 1) // parts - n * i // parts


def print_hits(signal_name: str, hits: dict[str, Hits]) -> None:
    """How often each phase of each family was hit."""
    print(f"{signal_name:10}" + "".join(f"{phase:>10}" for phase in PHASES))
    for name, hits_of in hits.items():
        print(f"{name:10}" + "".join(f"{hits_of[phase]:10}" for phase in PHASES))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100, help="SIGKILLs over all families")
    parser.add_argument("--stops", type=int, default=10, help="SIGTERMs over all families")
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4)))
    parser.add_argument("--families", default=",".join((*runs.FAMILIES, *runs.VARIANTS)))
    parser.add_argument(
        "--processes", type=int, default=1, help="processes per run, of which one is killed"
    )
    parser.add_argument("--workers", type=int, default=2, help="families in parallel")
    args = parser.parse_args()
    families = args.families.split(",")
    print(f"kill: {args.kills} kills, {args.stops} stops, --seed {args.seed}", flush=True)
    start, folder = time.monotonic(), Path(tempfile.mkdtemp(prefix="bert-jax-chaos-"))

    def run_family(name: str) -> list[Hits]:
        family = run_undisturbed(folder, name, args.processes)
        rng = random.Random(f"{args.seed} {name}")
        share = families.index(name), len(families)
        work = ((args.kills, kill), (args.stops, stop))
        return [disturb(family, share_of(n, *share), rng, end) for n, end in work]

    with ThreadPoolExecutor(args.workers) as pool:
        work = [pool.submit(run_family, family) for family in families]
        try:
            hits = [w.result() for w in work]
        except BaseException as e:
            pool.shutdown(cancel_futures=True)
            if isinstance(e, Failed):
                sys.exit(f"--seed {args.seed}: {e}\nits files are in {folder}")
            raise
    for i, name in enumerate(("SIGKILL", "SIGTERM")):
        print_hits(name, {f: h[i] for f, h in zip(families, hits, strict=True)})
    minutes = (time.monotonic() - start) / 60
    total = [sum(h[i].total() for h in hits) for i in range(2)]
    print(f"{total[0]} kills and {total[1]} stops, all bitwise equal, in {minutes:.1f} minutes")
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
