"""Commands that measure and predict speed and memory: `bench` and `plan`."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from tyro.conf import UseAppendAction, arg

from bert_jax.cli.command import Command, Config, Extra, optional
from bert_jax.cli.configs import load_config
from bert_jax.config import Experiment
from bert_jax.utils import strict_json

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Bench(Command):
    """Measure how fast a config trains on this machine: step time, tokens/s, utilization, memory.

    Example: bert-jax bench configs/bert_small.py --batch-size 16 --length 128 --against transformers
    """  # noqa: E501

    extra: ClassVar[Extra] = "config"

    config: Config
    # Number of rows per step; the default is that of the config.
    batch_size: Annotated[int | None, optional("N")] = None
    # Number of tokens per row; the default is that of the config.
    length: Annotated[int | None, optional("L")] = None
    # Number of timed rounds; a round is one step or more.
    steps: Annotated[int, arg(metavar="N")] = 20
    # Also train a masked language model with this encoder in PyTorch, in alternating rounds.
    against: Literal["transformers"] | None = None
    # Run PyTorch without torch.compile.
    no_compile: bool = False
    # Also find the largest batch that fits in memory.
    fit: bool = False
    # Corpus whose rows are used; the default is full rows of random ids.
    data: Annotated[str | None, optional("CORPUS")] = None
    # Packed corpus of the same text as --data, which only bert_jax uses.
    packed: Annotated[str | None, optional("CORPUS")] = None
    # Print one JSON object.
    json: bool = False

    def run(self, extra: list[str]) -> int:
        from bert_jax.utils import malloc

        malloc.tune()  # for both sides
        sizes = {"--data.batch-size": self.batch_size, "--data.length": self.length}
        given = [flag for flag, size in sizes.items() if size is not None]
        _refuse_unused_fields(extra, self.against is not None, given)
        experiment = load_config(self.config, extra, "bench")
        _refuse_teacher(experiment)
        from bert_jax.perf.bench import BenchOptions, bench, render_bench

        names = ("batch_size", "length", "steps", "fit", "data", "packed")
        options = BenchOptions(
            **{name: getattr(self, name) for name in names},
            against=self.against is not None,
            compile=not self.no_compile,
        )
        result = bench(experiment, options, logger.info)
        print(strict_json.dumps(result) if self.json else render_bench(result))
        return 0


def _refuse_teacher(experiment: Experiment) -> None:
    if experiment.distill.teacher is not None:
        raise ValueError(
            f"distill.teacher is {experiment.distill.teacher}, but this command takes steps "
            "without a teacher: leave it out"
        )


def _refuse_unused_fields(overrides: list[str], against: bool, given: Sequence[str]) -> None:
    """ValueError: a field that would change nothing, also because an option of `bench` has its
    value, as it has for those in `given`."""
    for flag in (o.partition("=")[0].replace("_", "-") for o in overrides):
        if flag in ("--data.path", "--data.mix"):
            raise ValueError(f"{flag} is not used: give the corpus as --data CORPUS")
        if flag in given:
            option = flag.replace("--data.", "--")
            raise ValueError(f"{option} and {flag} are given: leave one out")
        if against and flag.startswith("--mesh."):
            raise ValueError(
                f"{flag} cannot be used with --against: both sides train on one device"
            )


@dataclass(frozen=True)
class Plan(Command):
    """Compile the train step for TPUs or GPUs, without having one: memory, communication, bottleneck.

    Example: bert-jax plan configs/bert_large.py --topology v5e:4x4 --run.dtype bfloat16
    """  # noqa: E501

    extra: ClassVar[Extra] = "config"

    config: Config
    # TPU slice such as v5e:4x4, v5p:4x4x4, v6e:2x4 or v4:2x2x1, or GPUs such as h100:8, h200:1 or
    # a100:2x8 (two hosts of eight). This option can be repeated.
    topology: Annotated[
        UseAppendAction[tuple[str, ...]],
        arg(metavar="SLICE", help_behavior_hint="(required, repeatable)"),
    ]
    # Also search for the largest batch that fits.
    fit: bool = False
    # Print one JSON object.
    json: bool = False

    def run(self, extra: list[str]) -> int:
        if not self.topology:
            raise ValueError("--topology is missing: expected a slice such as v5e:4x4")
        experiment = load_config(self.config, extra, "plan")
        _refuse_teacher(experiment)
        from bert_jax.utils.platform import without_tpu_env

        without_tpu_env()  # before jax is imported
        from bert_jax.perf.plan import plan, render_plan

        result = plan(experiment, list(self.topology), self.fit, logger.info)
        print(strict_json.dumps(result) if self.json else render_plan(result))
        return 0
