"""Experiment config: frozen dataclasses whose defaults are BERT-base.

Values that follow from other fields are properties. `__post_init__` checks ranges and what
involves several fields. The comment above a field is its help text on the command line.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from bert_jax.config.encoder import Encoder
from bert_jax.config.objectives import Masked, Objective
from bert_jax.config.ranges import RangeChecks, check_ranges
from bert_jax.config.stages import Stage, build_stages, parse_stages


@dataclass(frozen=True)
class Data:
    """What the rows are, and how many are in a batch."""

    # Folder of a prepared corpus.
    path: str | None = None
    # Several corpora in place of `path`: PATH=WEIGHT,PATH=WEIGHT.
    mix: str | None = None
    # Number of rows per step, over all devices and processes.
    batch_size: int = 256
    # Number of tokens per row; None means the corpus's own length.
    length: int | None = None
    # Stages of the schedule as LENGTH[xROWS]=SHARE,..., such as 128x256=0.9,512x256=0.1. With
    # stages, {length} in `path` or `mix` is replaced by each stage's length.
    stages: str | None = None
    # Number of threads that read and decode rows ahead of the step.
    threads: int = 8
    # Hash of the corpus's content; it is filled in when a run starts.
    corpus: str | None = None

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ValueError(f"data.batch_size is {self.batch_size}: expected at least 1")
        if self.length is not None and self.length < 8:
            raise ValueError(f"data.length is {self.length}: expected at least 8")
        if self.stages is not None and self.length is not None:
            max_length = max(stage.length for stage in parse_stages(self.stages))
            if self.length != max_length:
                raise ValueError(
                    f"data.length is {self.length}, but data.stages sets the lengths, up to "
                    f"{max_length}: leave data.length out"
                )


@dataclass(frozen=True)
class Optim:
    """An optimizer and its schedule, each named after the code that published it."""

    # Name of the optimizer.
    name: Literal["bert_adam", "fairseq_adam", "lamb", "adamw", "muon"] = "bert_adam"
    # Shape of the learning rate schedule.
    schedule: Literal["bert", "electra", "roberta", "spanbert", "trapezoid"] = "bert"
    # Highest learning rate, which is reached after the warmup.
    peak_lr: float = 1e-4
    # Number of warmup steps.
    warmup_steps: int = 10_000
    # Warmup as a fraction of the schedule, in place of `warmup_steps`.
    warmup_ratio: float | None = None
    # Length of the schedule in steps; None means `run.steps`.
    decay_steps: int | None = None
    # Final fraction of the schedule in which `trapezoid` decays.
    cooldown_ratio: float = 0.1
    # Decay rate of Adam's first moment.
    b1: float = 0.9
    # Decay rate of Adam's second moment.
    b2: float = 0.999
    # Epsilon of Adam.
    eps: float = 1e-6
    # Momentum of Muon's matrices; the parameters that Muon leaves to AdamW use b1 and b2.
    momentum: float = 0.95
    # Weight decay, which is multiplied by the learning rate.
    weight_decay: float = 0.01
    # Parameters that are decayed; `weights` leaves out biases and layer norms.
    decay: Literal["weights", "all"] = "weights"
    # Learning rate of each layer relative to the layer above, as in ELECTRA; None means equal.
    layer_decay: float | None = None
    # Maximum global norm of the gradient; None means no gradient clipping.
    clip_norm: float | None = 1.0
    # Gradient accumulation: number of micro-batches per step.
    accumulate: int = 1

    def __post_init__(self) -> None:
        rate, positive = "0 <= x < 1", "more than 0"
        checks: RangeChecks = {
            "peak_lr": (self.peak_lr >= 0, "at least 0"),
            "warmup_steps": (self.warmup_steps >= 0, "at least 0"),
            "warmup_ratio": (0 <= (self.warmup_ratio or 0) < 1, rate),
            "decay_steps": (self.decay_steps is None or self.decay_steps >= 1, "at least 1"),
            "cooldown_ratio": (0 <= self.cooldown_ratio <= 1, "0 <= x <= 1"),
            "b1": (0 <= self.b1 < 1, rate),
            "b2": (0 <= self.b2 < 1, rate),
            "eps": (self.eps > 0, positive),
            "momentum": (0 <= self.momentum < 1, rate),
            "weight_decay": (self.weight_decay >= 0, "at least 0"),
            "layer_decay": (self.layer_decay is None or 0 < self.layer_decay <= 1, "0 < x <= 1"),
            "clip_norm": (self.clip_norm is None or self.clip_norm > 0, f"{positive}, or None"),
            "accumulate": (self.accumulate >= 1, "at least 1"),
        }
        check_ranges("optim", self, checks)


@dataclass(frozen=True)
class Mesh:
    """Number of devices along each axis; one axis may be -1, which takes all remaining ones."""

    # Devices for data parallelism.
    data: int = -1
    # Devices for fully sharded data parallelism.
    fsdp: int = 1
    # Devices for tensor parallelism.
    tensor: int = 1


@dataclass(frozen=True)
class Run:
    """Where a run is kept, how long it is, and how it is computed."""

    # Folder of the run; a second start there resumes the run.
    dir: str = "runs/bert"
    # Number of training steps.
    steps: int = 1_000_000
    # Fine-tuning: number of passes over the training rows; it sets `steps`.
    epochs: float | None = None
    # Fine-tuning: number of evaluations per epoch; it sets `eval_every`.
    evals_per_epoch: float | None = None
    # Random seed of the run.
    seed: int = 0
    # Number of steps between two lines in metrics.jsonl.
    log_every: int = 100
    # Number of steps between two checkpoints.
    save_every: int = 5_000
    # Number of steps between two evaluations.
    eval_every: int = 5_000
    # Number of batches in an evaluation.
    eval_batches: int = 32
    # Number of newest checkpoints to keep, in addition to the best one.
    max_to_keep: int = 3
    # Type of the computation; bfloat16 is mixed precision with float32 parameters.
    dtype: Literal["float32", "bfloat16"] = "float32"
    # Attention implementation (model/attention/); `auto` chooses one for the platform.
    attention: Literal["auto", "xla", "cudnn", "splash", "flash"] = "auto"
    # What a layer keeps for the backward pass: all, its matrix products, or only its input.
    remat: Literal["none", "dots", "full"] = "none"
    # Number of chunks of the batch in which vocabulary logits are computed, to save memory.
    loss_chunks: int = 1
    # Age in seconds at which the lock of a run directory on gs:// is taken over.
    lock_timeout: float = 600.0
    # Model to start from; its encoder and parameters are used.
    init: str | None = None

    def __post_init__(self) -> None:
        every = ("log_every", "save_every", "eval_every")
        counts = ("steps", *every, "eval_batches", "max_to_keep", "loss_chunks")
        evals = self.evals_per_epoch
        checks: RangeChecks = {
            "epochs": (self.epochs is None or self.epochs > 0, "above 0"),
            "evals_per_epoch": (evals is None or evals > 0, "above 0"),
            "seed": (self.seed >= 0, "at least 0"),
            "lock_timeout": (self.lock_timeout > 0, "above 0"),
            **{name: (getattr(self, name) >= 1, "at least 1") for name in counts},
        }
        check_ranges("run", self, checks)


@dataclass(frozen=True)
class Guard:
    """What a run does about non-finite numbers, loss spikes and hangs."""

    # Number of updates skipped in a row at which the run stops.
    max_skipped_updates: int = 10
    # What to do about a loss spike.
    spike: Literal["off", "warn", "skip"] = "warn"
    # Number of recent losses that a loss is compared with.
    spike_window: int = 128
    # A spike is this many deviations above the median of the recent losses.
    spike_factor: float = 10.0
    # A phase that takes this many times its median, and longer than `hang_timeout`, hangs.
    hang_factor: float = 20.0
    # Seconds after which a hanging phase has its stack traces written.
    hang_timeout: float = 300.0
    # Seconds in one phase after which the process is ended; None means never.
    timeout: float | None = None

    def __post_init__(self) -> None:
        positive = ("spike_factor", "hang_factor", "hang_timeout")
        counts = ("max_skipped_updates", "spike_window")
        checks: RangeChecks = {
            **{name: (getattr(self, name) >= 1, "at least 1") for name in counts},
            **{name: (getattr(self, name) > 0, "above 0") for name in positive},
            "timeout": (self.timeout is None or self.timeout > 0, "above 0"),
        }
        check_ranges("guard", self, checks)


@dataclass(frozen=True)
class Experiment:
    """Everything that defines a run."""

    encoder: Encoder = field(default_factory=Encoder)
    objective: Objective = field(default_factory=Masked)
    data: Data = field(default_factory=Data)
    optim: Optim = field(default_factory=Optim)
    mesh: Mesh = field(default_factory=Mesh)
    run: Run = field(default_factory=Run)
    guard: Guard = field(default_factory=Guard)

    def __post_init__(self) -> None:
        max_length = self.encoder.max_length
        for stage in self.stages:
            if stage.length is not None and stage.length > max_length:
                raise ValueError(
                    f"data.length {stage.length} is beyond the model's encoder.max_length "
                    f"{max_length}: shorten the rows or lengthen the position table"
                )
            if stage.batch_size % self.optim.accumulate:
                raise ValueError(
                    f"data.batch_size {stage.batch_size} is not divisible by optim.accumulate "
                    f"{self.optim.accumulate}, the number of micro-batches: choose a divisor"
                )

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages of the schedule (at least one), whose length is `optim.decay_steps` or else
        `run.steps`. The last stage continues after its end."""
        steps, data = self.optim.decay_steps or self.run.steps, self.data
        return build_stages(data.stages, steps, data.length, data.batch_size)
