"""The section `run`: folder, length and computation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bert_jax.config.ranges import MAX_STEPS, RangeChecks, check_paths, check_ranges

TRACKERS = ("tensorboard", "wandb", "mlflow")


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
    # (mixed precision). Accelerators round float32 products, too: to bfloat16 (TPU) or TF32 (GPU).
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
