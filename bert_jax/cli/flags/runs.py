"""Flags of what makes runs, and of what looks back at them."""

from __future__ import annotations

import argparse
import typing

from bert_jax.cli.flags.command import MODEL, Command
from bert_jax.config import GlueTask, TaskType


def pretrain(command: Command) -> None:
    p = command(
        "pretrain",
        "Pre-train, or go on where the run folder stopped.",
        "pretrain configs/tiny_bert.py --data.path corpus --run.dir runs/first",
    )
    p.add_argument("config", help="a file of configs/; CONFIG --help lists the fields to change")
    p.add_argument("--init", metavar="MODEL", help="begin with its encoder and parameters")
    p.add_argument(
        "--profile",
        type=int,
        default=0,
        metavar="STEPS",
        help="trace so many steps, but for the first three, into the run folder's profile/, for "
        "XProf or Perfetto",
    )
    take_over(p)
    processes(p)


def finetune(command: Command) -> None:
    tasks = (*typing.get_args(TaskType), *typing.get_args(GlueTask))
    p = command(
        "finetune",
        "Fine-tune a model on a task's labelled rows, or go on where the run folder stopped.",
        "finetune configs/finetune.py --init runs/demo --task classification --data sentiment",
    )
    p.add_argument("config", help="a file of configs/; CONFIG --help lists the fields to change")
    p.add_argument("--init", required=True, metavar="MODEL", help=MODEL)
    p.add_argument("--task", required=True, choices=tasks, metavar="KIND", help=" ".join(tasks))
    p.add_argument(
        "--data",
        required=True,
        help="a folder of train.jsonl, dev.jsonl and perhaps test.jsonl; of train.json, dev.json "
        "(SQuAD); of a GLUE task's TSV files; or tfds:NAME",
    )
    p.add_argument("--seeds", type=int, default=1, help="runs, each in a folder of its own")
    take_over(p)
    processes(p)


def replay(command: Command) -> None:
    p = command(
        "replay",
        "Do one step of a run again, and show its losses and gradient norms; changes nothing.",
        "replay runs/demo 137",
    )
    p.add_argument("run", help="a run folder, of pre-training or fine-tuning")
    p.add_argument("step", type=int)


def report(command: Command) -> None:
    p = command(
        "report",
        "Loss curves and a comparison of runs: PNG and one HTML page.",
        "report runs/demo --out runs/demo/report",
    )
    p.add_argument("run", nargs="+", help="run folders")
    p.add_argument("--out", required=True)


def take_over(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "--take-over",
        action="store_true",
        help="of a run.dir on a bucket: take over another run's lock at once; without it the lock "
        "is taken over when it is older than run.lock_timeout",
    )


def processes(p: argparse.ArgumentParser) -> None:
    """Of a command that several processes run together."""
    several = p.add_argument_group(
        "several processes",
        "Found by themselves under SLURM, Open MPI, Kubernetes and on Cloud TPU; launch/local.sh "
        "sets them.",
    )
    several.add_argument("--processes", type=int, metavar="N", help="number of processes")
    several.add_argument("--process", type=int, metavar="I", help="which one this is, from 0")
    several.add_argument(
        "--coordinator", metavar="HOST:PORT", help="of process 0; the port must be free"
    )
    several.add_argument(
        "--wait",
        type=float,
        default=300,
        metavar="SECONDS",
        help="wait so long for all processes to start (300)",
    )
    several.add_argument(
        "--heartbeat-timeout",
        type=int,
        default=100,
        metavar="SECONDS",
        help="a process is lost when jax has not heard from it for so long; the others end (100)",
    )
