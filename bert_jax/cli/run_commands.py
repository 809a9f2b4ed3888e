"""Commands that train, and that look back at runs: `pretrain`, `finetune`, `report`, `replay`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from tyro.conf import Positional, arg

from bert_jax.cli import logs
from bert_jax.cli.command import MODEL, Command, Config, Extra, change_config, optional
from bert_jax.cli.configs import load_config
from bert_jax.config import Experiment, GlueTask, TaskType

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Processes:
    """Several processes of one training run. SLURM, Open MPI, Kubernetes and Cloud TPU set these
    values themselves; launch/local.sh passes them."""

    # Number of processes of the run.
    processes: Annotated[int | None, optional("N")] = None
    # Index of this process, from 0.
    process: Annotated[int | None, optional("I")] = None
    # Host and a free port of process 0.
    coordinator: Annotated[str | None, optional("HOST:PORT")] = None
    # Number of seconds to wait at the start until all processes are connected.
    wait: Annotated[float, arg(metavar="SECONDS")] = 300
    # Number of seconds without a heartbeat after which jax considers a process lost and ends the
    # others.
    heartbeat_timeout: Annotated[int, arg(metavar="SECONDS")] = 100

    def train(
        self,
        experiment: Experiment,
        fit: Callable[[], int | None],
        flags: dict[str, Any] | None = None,
    ) -> int:
        """Call `fit` together with the other processes, if there are any. Returns the exit
        status; the process that jax counts as 0, which writes the run folder, logs and prints a
        summary. On a TPU jax chooses it; elsewhere it is the one with the coordinator.

        `flags` are values that the config does not hold and that all processes must share.
        """
        from bert_jax.distributed import initialize, process_info

        process = process_info.detect_process(self.processes, self.process, self.coordinator)
        if process is not None and process.index != 0:
            logs.show_errors_only()
        timeouts = {"wait": self.wait, "heartbeat_timeout": self.heartbeat_timeout}
        with initialize.connect(process, experiment, flags, **timeouts):
            is_first = process is None or initialize.is_first()
            if is_first:
                logs.configure()
            else:
                logs.show_errors_only()
            stop_signal = fit()
        if stop_signal is not None:
            return 128 + stop_signal
        if is_first:
            from bert_jax.training.run_summary import summary

            print(summary(experiment.run.dir))
        return 0


TakeOver = Annotated[
    bool,
    arg(
        help="On a bucket: take over the lock of another run at once. Otherwise a lock is taken "
        "over when it is older than run.lock_timeout."
    ),
]


@dataclass(frozen=True)
class Pretrain(Command):
    """Pre-train a model, or resume where the run folder stopped.

    CONFIG --help lists the fields of the config.

    Example: bert-jax pretrain configs/tiny_bert.py --data.path corpus --run.dir runs/first
    """

    extra: ClassVar[Extra] = "config"

    config: Config
    # Model whose encoder and parameters the run starts from: a folder, or a name on the Hub. With
    # --encoder.layers N it starts from N evenly spaced layers.
    init: Annotated[str | None, optional("MODEL")] = None
    # Model to learn from, beside the text: distillation. The fields of distill.* say how.
    teacher: Annotated[str | None, optional("MODEL")] = None
    # Number of steps to trace, starting after the first three. The trace is written to profile/ in
    # the run folder; open it with XProf or Perfetto.
    profile: Annotated[int, arg(metavar="STEPS")] = 0
    take_over: TakeOver = False
    distributed: Annotated[Processes, arg(name="")] = field(default_factory=Processes)

    def run(self, extra: list[str]) -> int:
        from bert_jax.utils import malloc

        overrides = _with_twins(
            extra,
            ("--init", self.init, "--run.init"),
            ("--teacher", self.teacher, "--distill.teacher"),
        )
        malloc.tune()
        experiment = load_config(self.config, overrides, "pretrain")
        if experiment.run.init is not None:
            experiment = load_config(self.config, _init_flags(overrides), "pretrain")
        from bert_jax.training.pretrain import pretrain

        fit = partial(pretrain, experiment, self.profile, self.take_over)
        return self.distributed.train(experiment, fit)


@dataclass(frozen=True)
class Finetune(Command):
    """Fine-tune a model on a task's labeled rows, or resume where the run folder stopped.

    CONFIG --help lists the fields of the config.

    Example: bert-jax finetune configs/finetune.py --init runs/demo --task classification --data sentiment
    """  # noqa: E501

    extra: ClassVar[Extra] = "config"

    config: Config
    init: Annotated[str, arg(metavar="MODEL", help=MODEL)]
    # Type of the task, or the name of a GLUE task; `pairs` trains a sentence encoder.
    task: TaskType | GlueTask | Literal["pairs"]
    # Folder of train.jsonl, dev.jsonl and optionally test.jsonl; or of train.json and dev.json
    # (SQuAD); or of the TSV files of a GLUE task; or tfds:NAME; or a dataset of
    # the Hugging Face Hub, hf:datasets/OWNER/NAME[@REVISION][/CONFIG].
    data: Annotated[str, arg(metavar="DIR")]
    # Number of runs with different seeds; each has its own folder.
    seeds: Annotated[int, arg(metavar="N")] = 1
    # Checkpoint that is scored and loaded: the best on dev, or the last one, which is the protocol
    # of BERT and ELECTRA.
    select: Annotated[Literal["best", "last"] | None, optional("best|last")] = None
    # Train a new head, also if MODEL was fine-tuned for the same task and labels.
    new_head: bool = False
    # Model that was fine-tuned for the same task, to learn from beside the labels: distillation.
    # The fields distill.weight and distill.temperature say how.
    teacher: Annotated[str | None, optional("MODEL")] = None
    # Labels of dev and test that train does not have: an error, or left out of the scores.
    unknown_labels: Literal["refuse", "ignore"] = "refuse"
    take_over: TakeOver = False
    distributed: Annotated[Processes, arg(name="")] = field(default_factory=Processes)

    def run(self, extra: list[str]) -> int:
        from bert_jax import config
        from bert_jax.utils import malloc

        unknown_labels = self.unknown_labels if self.unknown_labels != "refuse" else None
        overrides = _with_twins(
            extra,
            ("--init", self.init, "--run.init"),
            ("--task", self.task, "--objective.task"),
            ("--data", self.data, "--data.path"),
            ("--select", self.select, "--run.select"),
            ("--unknown-labels", unknown_labels, "--objective.unknown-labels"),
            ("--teacher", self.teacher, "--distill.teacher"),
        )
        malloc.tune()
        recipe = config.from_python_file(self.config)
        if self.task == "pairs" and isinstance(recipe.objective, config.Supervised):
            recipe = config.replace(recipe, objective=config.Contrastive())  # no label head
        flags = _init_flags([*overrides, *(["--objective.new-head"] if self.new_head else [])])
        from bert_jax.training.finetune import finetune
        from bert_jax.training.finetune_config import for_model

        experiment = for_model(recipe, lambda e: change_config(e, flags, "finetune"))

        fit = partial(finetune, experiment, self.seeds, self.take_over)
        return self.distributed.train(experiment, fit, {"--seeds": self.seeds})


def _with_twins(overrides: Sequence[str], *twins: tuple[str, str | None, str]) -> list[str]:
    """The flags of the config, with those that flags of the command stand for. A twin is the flag
    of the command, its value (None: it is not given), and the flag of the field that it sets.

    ValueError: both flags of a twin are given, with different values.
    """
    given: dict[str, str] = {}
    for word, following in zip(overrides, [*overrides, ""][1:], strict=True):
        name, equals, value = word.partition("=")
        given[name.replace("_", "-")] = value if equals else following
    for flag, value, field_flag in twins:
        other = given.get(field_flag)
        if None not in (value, other) and value != other:
            raise ValueError(f"{flag} is {value} and {field_flag} {other}: give one of the two")
    set_by_twins = ((field, value) for _, value, field in twins if value is not None)
    return [*overrides, *(word for pair in set_by_twins for word in pair)]


def _init_flags(overrides: Sequence[str]) -> list[str]:
    """The flags of a run that starts from a model: `--encoder.layers` chooses among its layers.

    ValueError: another field of the encoder than its depth and its dropout rates.
    """
    flags = []
    for flag in overrides:
        name, *value = flag.split("=", 1)
        if name == "--encoder.layers":
            flag = "=".join(["--run.init-layers", *value])
        elif flag.startswith("--encoder.") and "dropout" not in flag:
            raise ValueError(
                f"{flag} cannot be used with --init: the encoder comes from the model; only "
                "--encoder.layers, --encoder.dropout and --encoder.attention-dropout may be set"
            )
        flags.append(flag)
    return flags


@dataclass(frozen=True)
class Report(Command):
    """Draw loss curves and compare runs: PNG and one HTML page.

    Example: bert-jax report runs/demo --out runs/demo/report
    """

    # Run folders.
    run_dirs: Annotated[
        Positional[tuple[str, ...]],
        arg(name="run", metavar="RUN...", help_behavior_hint="(required)"),
    ]
    # Folder for the report.
    out: Annotated[str, arg(metavar="DIR")]

    def run(self, extra: list[str]) -> int:
        if not self.run_dirs:
            raise ValueError("no RUN is given: expected run folders")
        from bert_jax.training import report

        for path in report.report([Path(run) for run in self.run_dirs], Path(self.out)):
            print(path)
        return 0


@dataclass(frozen=True)
class Replay(Command):
    """Repeat one step of a run and show its losses and gradient norms. Nothing is changed.

    Example: bert-jax replay runs/demo 137
    """

    # Run folder of pre-training or fine-tuning.
    run_dir: Annotated[Positional[str], arg(metavar="RUN")]
    # Number of the step.
    step: Annotated[Positional[int], arg(metavar="STEP")]

    def run(self, extra: list[str]) -> int:
        from bert_jax.training.replay import render_replay, replay

        result = replay(Path(self.run_dir), self.step)
        print(render_replay(result, Path(self.run_dir)))
        if result.cause is not None:
            logger.warning(result.cause)
        return 0
