"""Frozen dataclasses whose defaults are BERT-base.

Numbers that follow from others are properties, never fields; what one field cannot say alone
is checked in `__post_init__`. A comment behind a field is its help on the command line.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from bert_jax.config.encoder import Encoder
from bert_jax.config.objectives import Masked, Objective
from bert_jax.config.ranges import Holds, check
from bert_jax.config.stages import Stage, parse_stages, stages_of


@dataclass(frozen=True)
class Data:
    path: str | None = None  # a prepared corpus
    mix: str | None = None  # PATH=WEIGHT,PATH=WEIGHT instead
    batch_size: int = 256  # rows, over all devices and processes
    length: int | None = None  # tokens per row; None: the corpus's own
    # LENGTH[xROWS]=SHARE,... of the schedule, one after another: 128x256=0.9,512x256=0.1; then
    # {length} in `path` or `mix` stands for each stage's
    stages: str | None = None
    threads: int = 8  # that read and decode rows ahead of the step
    corpus: str | None = None  # what the corpus holds, as a hash; filled in when a run begins

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ValueError(f"data.batch_size is {self.batch_size}: expected at least 1")
        if self.length is not None and self.length < 8:
            raise ValueError(f"data.length is {self.length}: expected at least 8")
        if self.stages is not None and self.length is not None:
            longest = max(part.length for part in parse_stages(self.stages))
            if self.length != longest:
                raise ValueError(
                    f"data.length is {self.length}, but data.stages has lengths of its own, up "
                    f"to {longest}: leave data.length out"
                )


@dataclass(frozen=True)
class Optim:
    """An optimiser and its schedule, each under the name of the code that published it."""

    name: Literal["bert_adam", "fairseq_adam", "lamb", "adamw", "muon"] = "bert_adam"
    schedule: Literal["bert", "electra", "roberta", "spanbert", "trapezoid"] = "bert"
    peak_lr: float = 1e-4
    warmup_steps: int = 10_000
    warmup_ratio: float | None = None  # of the schedule's steps, in place of warmup_steps
    decay_steps: int | None = None  # length of the schedule; None: run.steps
    cooldown_ratio: float = 0.1  # of the schedule's steps, at its end: trapezoid's fall
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-6
    momentum: float = 0.95  # of muon's matrices; what it leaves to adamw has b1 and b2
    weight_decay: float = 0.01
    decay: Literal["weights", "all"] = "weights"  # weights: neither biases nor layer norms
    layer_decay: float | None = None  # each layer's rate over that of the layer above; ELECTRA
    clip_norm: float | None = 1.0  # of the gradient's global norm; None: not clipped
    accumulate: int = 1  # micro-batches per step

    def __post_init__(self) -> None:
        share, more = "0 <= x < 1", "more than 0"
        holds: Holds = {
            "peak_lr": (self.peak_lr >= 0, "at least 0"),
            "warmup_steps": (self.warmup_steps >= 0, "at least 0"),
            "warmup_ratio": (0 <= (self.warmup_ratio or 0) < 1, share),
            "decay_steps": (self.decay_steps is None or self.decay_steps >= 1, "at least 1"),
            "cooldown_ratio": (0 <= self.cooldown_ratio <= 1, "0 <= x <= 1"),
            "b1": (0 <= self.b1 < 1, share),
            "b2": (0 <= self.b2 < 1, share),
            "eps": (self.eps > 0, more),
            "momentum": (0 <= self.momentum < 1, share),
            "weight_decay": (self.weight_decay >= 0, "at least 0"),
            "layer_decay": (self.layer_decay is None or 0 < self.layer_decay <= 1, "0 < x <= 1"),
            "clip_norm": (self.clip_norm is None or self.clip_norm > 0, f"{more}, or None"),
            "accumulate": (self.accumulate >= 1, "at least 1"),
        }
        check("optim", self, holds)


@dataclass(frozen=True)
class Mesh:
    """Devices along each axis; one axis may be -1: all that are left."""

    data: int = -1
    fsdp: int = 1
    tensor: int = 1


@dataclass(frozen=True)
class Run:
    dir: str = "runs/bert"
    steps: int = 1_000_000
    epochs: float | None = None  # fine-tuning: passes over the training rows; gives `steps`
    evals_per_epoch: float | None = None  # fine-tuning: gives `eval_every`
    seed: int = 0
    log_every: int = 100
    save_every: int = 5_000
    eval_every: int = 5_000
    eval_batches: int = 32
    max_to_keep: int = 3  # newest checkpoints kept, beside the best
    dtype: Literal["float32", "bfloat16"] = "float32"
    # How attention is computed; auto: what suits the platform. See model/attention/
    attention: Literal["auto", "xla", "cudnn", "splash", "flash"] = "auto"
    # What a layer keeps for its gradient: everything, its matrix products, or its input alone
    remat: Literal["none", "dots", "full"] = "none"
    loss_chunks: int = 1  # of a batch, in which its logits over the vocabulary are made
    init: str | None = None  # a model whose encoder and parameters the run begins with

    def __post_init__(self) -> None:
        every = ("log_every", "save_every", "eval_every")
        counts = ("steps", *every, "eval_batches", "max_to_keep", "loss_chunks")
        holds: Holds = {
            "epochs": (self.epochs is None or self.epochs > 0, "above 0"),
            "evals_per_epoch": (
                self.evals_per_epoch is None or self.evals_per_epoch > 0,
                "above 0",
            ),
            "seed": (self.seed >= 0, "at least 0"),
            **{name: (getattr(self, name) >= 1, "at least 1") for name in counts},
        }
        check("run", self, holds)


@dataclass(frozen=True)
class Guard:
    """What a run does about numbers and phases that are not as they should be."""

    max_skipped_updates: int = 10  # updates left out in a row, at which the run stops
    spike: Literal["off", "warn", "skip"] = "warn"  # a loss far above the last ones
    spike_window: int = 128  # losses that it is compared with
    spike_factor: float = 10.0  # deviations above their median
    hang_factor: float = 20.0  # a phase that takes this many times its median ...
    hang_timeout: float = 300.0  # ... and this many seconds has its stacks written
    timeout: float | None = None  # seconds in one phase that end the process

    def __post_init__(self) -> None:
        for name in ("max_skipped_updates", "spike_window"):
            if getattr(self, name) < 1:
                raise ValueError(f"guard.{name} is {getattr(self, name)}: expected at least 1")
        for name in ("spike_factor", "hang_factor", "hang_timeout", "timeout"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"guard.{name} is {value}: expected above 0")


@dataclass(frozen=True)
class Experiment:
    """Everything that a run is made of."""

    encoder: Encoder = field(default_factory=Encoder)
    objective: Objective = field(default_factory=Masked)
    data: Data = field(default_factory=Data)
    optim: Optim = field(default_factory=Optim)
    mesh: Mesh = field(default_factory=Mesh)
    run: Run = field(default_factory=Run)
    guard: Guard = field(default_factory=Guard)

    def __post_init__(self) -> None:
        most = self.encoder.max_length
        for stage in self.stages:
            if stage.length is not None and stage.length > most:
                raise ValueError(
                    f"data.length {stage.length} is beyond the model's encoder.max_length {most}: "
                    "shorten the rows or lengthen the position table"
                )
            if stage.batch_size % self.optim.accumulate:
                raise ValueError(
                    f"data.batch_size {stage.batch_size} does not divide into optim.accumulate "
                    f"{self.optim.accumulate} micro-batches"
                )

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The shapes of the batches, each from a step on; at least one. Shares are of the
        schedule (`optim.decay_steps`, else `run.steps`); the last stage goes on beyond it."""
        steps, data = self.optim.decay_steps or self.run.steps, self.data
        return stages_of(data.stages, steps, data.length, data.batch_size)
