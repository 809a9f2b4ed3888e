"""Runs that are killed at random moments, and started again each time, end bit by bit as
undisturbed ones do: parameters, optimiser, guard, and every metric but the throughput.

    python tests/chaos/kill.py [--kills 100] [--stops 10] [--seed 0] [--families bert,...]
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

PLACES = ("start-up", "restore", "compile", "steps", "save", "manifest")
STOPPED = (128 + signal.SIGTERM, 128 + signal.SIGINT, -signal.SIGTERM, -signal.SIGINT)
Hits = collections.Counter[str]


class Wrong(Exception):
    """A run did what it must not; what it said."""


class Family(NamedTuple):
    root: Path
    name: str
    corpus: Path
    calm: Path  # a run that nobody disturbs
    processes: int  # of each run
    seconds: float  # from its start to its first step

    def start(self, run: Path) -> runs.Process:
        commands = runs.pretrain(self.name, self.corpus, run, self.processes)
        return runs.Process(commands, run, runs.environment(self.root))


def undisturbed(root: Path, name: str, processes: int) -> Family:
    calm = root / f"{name}-calm"
    family = Family(root, name, runs.prepare(root, name), calm, processes, 0.0)
    for _ in range(2):  # the second finds everything compiled
        shutil.rmtree(family.calm, ignore_errors=True)
        process = family.start(family.calm)
        process.wait_for(lambda p=process: p.logged(1))
        family = family._replace(seconds=time.monotonic() - process.begun)
        finish(process)
    return family


def finish(process: runs.Process) -> None:
    if process.status() != 0:
        raise Wrong(f"{process.run} ended with status {process.status()}: {process.said()}")


def kill(process: runs.Process, rng: random.Random) -> str:
    """SIGKILL to one of its processes -> where it hit."""
    if not process.kill(rng):
        raise Wrong(f"{process.run} ended with status {process.status()}: {process.said()}")
    return process.place()


def stop(process: runs.Process, rng: random.Random) -> str:
    """SIGTERM, and half of the time a second signal soon after -> where the first hit."""
    place = process.place()
    process.send(signal.SIGTERM)
    again = rng.random() < 0.5 and process.wait_for(lambda: True, rng.uniform(0.0, 1.5))
    if again:
        process.send(signal.SIGINT)
    if process.status() not in STOPPED:
        raise Wrong(f"{process.run} ended with status {process.status()}: {process.said()}")
    saved = process.status() == 128 + signal.SIGTERM and not again
    if saved and not (process.run / f"checkpoints/{runs.last_step(process.run)}").is_dir():
        raise Wrong(f"{process.run} ended by SIGTERM and did not save its last step")
    return place


def disturb(
    family: Family,
    times: int,
    rng: random.Random,
    end: Callable[[runs.Process, random.Random], str],
) -> Hits:
    """As many runs as it takes to end processes so often; each is compared when it is done."""
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
            if process.newest and process.began_anew():
                raise Wrong(f"{run} began anew although step {process.newest} was saved")
        wrong = runs.differences(run, family.calm)
        if wrong:
            raise Wrong(f"{run} is not as an undisturbed run: {', '.join(wrong[:5])}")
        print(f"{run.name} equals an undisturbed run; {hits.total()} of {times}", flush=True)
    return hits


def part(n: int, i: int, parts: int) -> int:
    """The i-th of so many parts that add up to n."""
    return n * (i + 1) // parts - n * i // parts


def show(what: str, hits: dict[str, Hits]) -> None:
    """Where each family was hit."""
    print(f"{what:10}" + "".join(f"{place:>10}" for place in PLACES))
    for name, found in hits.items():
        print(f"{name:10}" + "".join(f"{found[place]:10}" for place in PLACES))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100, help="SIGKILLs, over all families")
    parser.add_argument("--stops", type=int, default=10, help="SIGTERMs, over all families")
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4)))
    parser.add_argument("--families", default=",".join(runs.FAMILIES))
    parser.add_argument("--processes", type=int, default=1, help="of each run; one is killed")
    parser.add_argument("--workers", type=int, default=2, help="families at a time")
    args = parser.parse_args()
    families = args.families.split(",")
    print(f"kill: {args.kills} kills, {args.stops} stops, --seed {args.seed}", flush=True)
    begun, folder = time.monotonic(), Path(tempfile.mkdtemp(prefix="bert-jax-chaos-"))

    def one(name: str) -> list[Hits]:
        family = undisturbed(folder, name, args.processes)
        rng = random.Random(f"{args.seed} {name}")
        share = families.index(name), len(families)
        work = ((args.kills, kill), (args.stops, stop))
        return [disturb(family, part(n, *share), rng, end) for n, end in work]

    with ThreadPoolExecutor(args.workers) as pool:
        work = [pool.submit(one, family) for family in families]
        try:
            hits = [w.result() for w in work]
        except BaseException as e:
            pool.shutdown(cancel_futures=True)
            if isinstance(e, Wrong):
                sys.exit(f"--seed {args.seed}: {e}\nwhat it left is in {folder}")
            raise
    for i, what in enumerate(("SIGKILL", "SIGTERM")):
        show(what, {name: h[i] for name, h in zip(families, hits, strict=True)})
    minutes = (time.monotonic() - begun) / 60
    total = [sum(h[i].total() for h in hits) for i in range(2)]
    print(f"{total[0]} kills and {total[1]} stops, all bit by bit equal, in {minutes:.1f} minutes")
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
