"""Experiment config: frozen dataclasses whose defaults are BERT-base.

Values that follow from other fields are properties. `__post_init__` checks ranges and what
involves several fields. The comment above a field is its help text on the command line.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from bert_jax.config.distill import Distill
from bert_jax.config.encoder import Encoder
from bert_jax.config.freeze import parse_freeze
from bert_jax.config.guard import Guard
from bert_jax.config.lora import Lora
from bert_jax.config.objectives import Masked, Objective
from bert_jax.config.ranges import MAX_STEPS, RangeChecks, check_paths, check_ranges
from bert_jax.config.stages import Stage, build_stages, parse_stages

TRACKERS = ("tensorboard", "wandb", "mlflow")


@dataclass(frozen=True)
class Data:
    """The rows, and how many are in a batch."""

    # Folder of a corpus that `bert-jax prepare` wrote.
    path: str | None = None
    # Several corpora and their weights, instead of `path`: PATH=WEIGHT,PATH=WEIGHT.
    mix: str | None = None
    # Weights of the corpora of `mix`, which then has paths only: in proportion to their tokens to
    # the power of this number. 1 is by size, 0 is equal, and 0.3 favors small languages.
    mix_exponent: float | None = None
    # Number of rows per step, over all devices and processes.
    batch_size: int = 256
    # Maximum number of tokens per row; None means the length of the corpus.
    length: int | None = None
    # Stages of training as LENGTH[xROWS]=SHARE,..., such as 128x256=0.9,512x256=0.1: rows of LENGTH
    # tokens in batches of ROWS for this SHARE of the steps. In `path` and `mix`, {length} is
    # replaced by each stage's length.
    stages: str | None = None
    # In fine-tuning: put rows of similar length into a batch. It is padded to its longest row, so
    # steps take less time where lengths vary; the order of the rows is less random.
    group_by_length: bool = False
    # Number of threads that read and decode rows before the step needs them.
    threads: int = 8
    # Hash of the corpus's content. A run sets it when it starts; do not set it.
    corpus: str | None = None

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ValueError(f"data.batch_size is {self.batch_size}: expected at least 1")
        if self.threads < 0:
            raise ValueError(f"data.threads is {self.threads}: expected at least 0")
        check_paths("data", path=self.path)
        for path in (self.mix or "").split(","):
            check_paths("data", mix=path.strip())
        exponent = self.mix_exponent
        if exponent is not None and not (0 <= exponent <= 1 and self.mix is not None):
            raise ValueError(
                f"data.mix_exponent is {exponent}: expected 0 to 1, and data.mix with the paths of "
                "the corpora"
            )
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
    """Optimizer and learning rate schedule, named after the code that published them."""

    # Optimizer: Adam as in BERT's code or in fairseq, LAMB, AdamW, StableAdamW, or Muon.
    name: Literal["bert_adam", "fairseq_adam", "lamb", "adamw", "stable_adamw", "muon"] = (
        "bert_adam"
    )
    # Schedule of the learning rate, as in the code of BERT, ELECTRA, RoBERTa or SpanBERT, or a
    # trapezoid: warmup, constant, cooldown.
    schedule: Literal["bert", "electra", "roberta", "spanbert", "trapezoid"] = "bert"
    # Highest learning rate, at the end of the warmup.
    peak_lr: float = 1e-4
    # Number of warmup steps.
    warmup_steps: int = 10_000
    # Warmup as a fraction of the schedule, instead of `warmup_steps`.
    warmup_ratio: float | None = None
    # Length of the schedule in steps; None means `run.steps`.
    decay_steps: int | None = None
    # With `trapezoid`: fraction of the schedule, at its end, in which the learning rate decays.
    cooldown_ratio: float = 0.1
    # Shape of that decay: a line, or 1 - sqrt of its progress (`sqrt`), as in ModernBERT's last
    # phase.
    cooldown_shape: Literal["linear", "sqrt"] = "linear"
    # Decay rate of Adam's first moment.
    b1: float = 0.9
    # Decay rate of Adam's second moment.
    b2: float = 0.999
    # Epsilon of Adam.
    eps: float = 1e-6
    # Momentum of Muon. It trains matrices; all other parameters are trained by AdamW with b1 and
    # b2.
    momentum: float = 0.95
    # Weight decay. In each step it is multiplied by the learning rate.
    weight_decay: float = 0.01
    # Parameters with weight decay: `all`, or `weights`, which leaves out biases and norms.
    decay: Literal["weights", "all"] = "weights"
    # Ratio of each layer's learning rate to that of the layer above, as in ELECTRA; None means 1.
    layer_decay: float | None = None
    # Parts of the network that keep their parameters: embeddings, encoder (all but the heads), or
    # layers from 0 on, such as embeddings,0-5.
    freeze: str | None = None
    # Maximum global norm of the gradient, to which larger gradients are clipped; None disables
    # clipping.
    clip_norm: float | None = 1.0
    # Number of micro-batches into which each batch is split (gradient accumulation).
    accumulate: int = 1

    def __post_init__(self) -> None:
        rate, positive = "0 <= x < 1", "more than 0"
        checks: RangeChecks = {
            "peak_lr": (self.peak_lr >= 0, "at least 0"),
            "warmup_steps": (0 <= self.warmup_steps < MAX_STEPS, f"0 to {MAX_STEPS - 1:,}"),
            "warmup_ratio": (0 <= (self.warmup_ratio or 0) < 1, rate),
            "decay_steps": (
                self.decay_steps is None or 1 <= self.decay_steps < MAX_STEPS,
                f"1 to {MAX_STEPS - 1:,}",
            ),
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
        if self.freeze is not None:
            parse_freeze(self.freeze)


@dataclass(frozen=True)
class Mesh:
    """Number of devices along each axis; one axis may be -1, which takes all remaining ones."""

    # Number of devices for data parallelism.
    data: int = -1
    # Number of devices for fully sharded data parallelism.
    fsdp: int = 1
    # Number of devices for tensor parallelism.
    tensor: int = 1


@dataclass(frozen=True)
class Run:
    """Folder, length and computation of a run."""

    # Folder of the run. If it holds a run, the run is resumed.
    dir: str = "runs/bert"
    # Number of training steps.
    steps: int = 1_000_000
    # Fine-tuning only: number of passes over the training rows, instead of `steps`.
    epochs: float | None = None
    # Fine-tuning only: number of evaluations per epoch, instead of `eval_every`.
    evals_per_epoch: float | None = None
    # Early stopping: number of evaluations in a row without a better result after which the run
    # ends; None trains to the last step. Fine-tuning compares the task's metric on dev,
    # pre-training the evaluation loss, and then it saves at every evaluation, too.
    patience: int | None = None
    # Fine-tuning only: the checkpoint that is scored and loaded, the best one on dev or the last
    # one.
    select: Literal["best", "last"] = "best"
    # Seed of initialization, order of rows, masks and dropout.
    seed: int = 0
    # Number of steps between two lines in metrics.jsonl.
    log_every: int = 100
    # Number of steps between two checkpoints. Fine-tuning, and pre-training with `patience`, also
    # save at every evaluation.
    save_every: int = 5_000
    # Number of steps between two evaluations.
    eval_every: int = 5_000
    # Maximum number of batches in an evaluation.
    eval_batches: int = 32
    # Number of newest checkpoints to keep, in addition to the best one; 2 are kept in any case.
    max_to_keep: int = 3
    # Type of activations and matrix products. With bfloat16, parameters and optimizer stay float32
    # (mixed precision).
    dtype: Literal["float32", "bfloat16"] = "float32"
    # Implementation of attention; `auto` chooses one for the platform.
    attention: Literal["auto", "xla", "blocked", "cudnn", "splash", "flash"] = "auto"
    # What a layer stores for the backward pass: all activations (`none`), only matrix products
    # (`dots`), or only its input (`full`). Less memory, more compute.
    remat: Literal["none", "dots", "full"] = "none"
    # Number of layers per iteration of the loop over layers in training. With all of them there is
    # no loop: a GPU copies less, and compilation takes longer. None: all on a GPU without remat,
    # else one; the configs of fine-tuning have one. Of an encoder whose groups share parameters, an
    # iteration has whole groups, or a part of one. The parameters stay as they are.
    unroll: int | None = None
    # Number of chunks into which the batch is split to compute vocabulary logits. More chunks need
    # less memory.
    loss_chunks: int = 1
    # Number of seconds without renewal after which another run may take over the lock of a run
    # directory on gs://.
    lock_timeout: float = 600.0
    # Type of the tensors in the Hugging Face folder that the model was imported from; an export has
    # it, too, where that loses nothing. Import sets it; do not set it.
    imported_dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    # With `init` and rotary positions: whether the maximum length and the bases of the rotary
    # frequencies are the model's, or this config's, as in a phase of longer rows.
    init_positions: Literal["model", "config"] = "model"
    # Model whose encoder and parameters the run starts from.
    init: str | None = None
    # With `init`: number of layers of the encoder, which are evenly spaced ones of the model: layer
    # i of m is layer ceil(i n / m) of n. None keeps all of them. With a model to start from, the
    # command line's encoder.layers sets it.
    init_layers: int | None = None
    # Experiment trackers beside metrics.jsonl, separated by commas: some of tensorboard, wandb and
    # mlflow, or nothing. wandb and mlflow need the extra of that name.
    trackers: str = "tensorboard"
    # Commit of `init`, if that is a name on the Hugging Face Hub. A run sets it when it starts, and
    # takes the same commit when it resumes; do not set it.
    init_commit: str | None = None

    def __post_init__(self) -> None:
        every = ("log_every", "save_every", "eval_every")
        counts = ("steps", *every, "eval_batches", "max_to_keep", "loss_chunks")
        evals = self.evals_per_epoch
        checks: RangeChecks = {
            "epochs": (self.epochs is None or self.epochs > 0, "above 0"),
            "evals_per_epoch": (evals is None or evals > 0, "above 0"),
            "init_layers": (self.init_layers is None or self.init_layers >= 1, "at least 1"),
            "patience": (self.patience is None or self.patience >= 1, "at least 1, or None"),
            "seed": (self.seed >= 0, "at least 0"),
            "unroll": (self.unroll is None or self.unroll >= 1, "at least 1, or None"),
            "lock_timeout": (self.lock_timeout > 0, "above 0"),
            **{name: (getattr(self, name) >= 1, "at least 1") for name in counts},
            "steps": (1 <= self.steps < MAX_STEPS, f"1 to {MAX_STEPS - 1:,}"),
        }
        check_ranges("run", self, checks)
        check_paths("run", dir=self.dir)
        if self.init_layers is not None and self.init is None:
            raise ValueError(
                f"run.init_layers is {self.init_layers}, but there is no run.init: give --init "
                "MODEL, or leave it out"
            )
        unknown = [name for name in self.tracker_names if name not in TRACKERS]
        if unknown:
            raise ValueError(
                f"run.trackers names {unknown[0]!r}: expected some of {', '.join(TRACKERS)}"
            )

    @property
    def tracker_names(self) -> tuple[str, ...]:
        """The names in `trackers`, in order."""
        return tuple(dict.fromkeys(filter(None, self.trackers.replace(" ", "").split(","))))


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
    distill: Distill = field(default_factory=Distill)
    lora: Lora = field(default_factory=Lora)

    def __post_init__(self) -> None:
        for field_, value in (
            ("optim.freeze", self.optim.freeze),
            ("run.init_layers", self.run.init_layers),
        ):
            if self.lora.enabled and value is not None:
                raise ValueError(
                    f"{field_} is {value} and lora.rank {self.lora.rank}: leave one of the two "
                    "out; adapters freeze the whole encoder of the model that they start from"
                )
        max_length = self.encoder.max_length
        for stage in self.stages:
            if stage.length is not None and stage.length > max_length:
                raise ValueError(
                    f"data.length {stage.length} is beyond the model's encoder.max_length "
                    f"{max_length}: shorten the rows, or raise encoder.max_length (of a trained "
                    "model: import --positions)"
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
