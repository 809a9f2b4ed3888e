"""The experiment config: frozen dataclasses whose defaults are BERT-base. Here are the sections
`data` and `mesh`; the others have files of their own.

Values that follow from other fields are properties. `__post_init__` checks ranges and what
involves several fields. The comment above a field is its help text on the command line.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from bert_jax.config.contrastive import Contrastive
from bert_jax.config.distill import Distill
from bert_jax.config.encoder import Encoder
from bert_jax.config.guard import Guard
from bert_jax.config.lora import Lora
from bert_jax.config.objectives import Masked, Objective
from bert_jax.config.optim import Optim
from bert_jax.config.ranges import RangeChecks, check_paths, check_ranges
from bert_jax.config.run import Run
from bert_jax.config.stages import Stage, build_stages, parse_stages
from bert_jax.config.supervised import Supervised


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
        checks: RangeChecks = {
            "batch_size": (self.batch_size >= 1, "at least 1"),
            "threads": (self.threads >= 0, "at least 0"),
            "length": (self.length is None or self.length >= 8, "at least 8"),
        }
        check_ranges("data", self, checks)
        check_paths("data", path=self.path)
        for path in (self.mix or "").split(","):
            check_paths("data", mix=path.strip())
        exponent = self.mix_exponent
        if exponent is not None and not (0 <= exponent <= 1 and self.mix is not None):
            raise ValueError(
                f"data.mix_exponent is {exponent}: expected 0 to 1, and data.mix with the paths of "
                "the corpora"
            )
        if self.stages is not None and self.length is not None:
            max_length = max(stage.length for stage in parse_stages(self.stages))
            if self.length != max_length:
                raise ValueError(
                    f"data.length is {self.length}, but data.stages sets the lengths, up to "
                    f"{max_length}: leave data.length out"
                )


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
    def row_length(self) -> int:
        """Tokens per row of fine-tuning: `data.length`, or else the objective's default.
        ValueError: another objective."""
        if not isinstance(self.objective, Supervised | Contrastive):
            raise ValueError("the model has no head for a task, so no row length: fine-tune it")
        default = min(self.objective.default_length, self.encoder.max_length)
        return self.data.length or default

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages of the schedule (at least one), whose length is `optim.decay_steps` or else
        `run.steps`. The last stage continues after its end."""
        steps, data = self.optim.decay_steps or self.run.steps, self.data
        return build_stages(data.stages, steps, data.length, data.batch_size)
