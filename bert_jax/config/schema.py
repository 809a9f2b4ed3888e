"""Frozen dataclasses whose defaults are BERT-base.

Numbers that follow from others are properties, never fields; what one field cannot say alone
is checked in `__post_init__`. A comment behind a field is its help on the command line.
"""

from __future__ import annotations

import dataclasses
import typing
from dataclasses import dataclass, field
from typing import Literal

from bert_jax.config.stages import Stage, parse_stages, stages_of

LARGEST = 1 << 30  # of a size: rows are counted in 32 bits


@dataclass(frozen=True)
class Encoder:
    """`layers` layers made of `groups` sets of parameters, over one embedding block."""

    layers: int = 12
    hidden_size: int = 768
    heads: int = 12
    mlp_size: int | None = None  # None: four times the hidden size
    embedding_size: int | None = None  # None: the hidden size; else a projection follows
    groups: int | None = None  # None: one per layer (BERT); 1: one for all (ALBERT)
    share: Literal["all", "attention", "mlp"] = "all"  # which part a group's layers share
    vocab_size: int = 30522
    max_length: int = 512  # usable tokens; the table has `position_offset` rows more
    position_offset: int = 0  # RoBERTa: 2, the rows 0 and 1 are never looked up
    token_types: int = 2  # 0: no table
    activation: Literal["gelu", "gelu_tanh", "relu"] = "gelu"
    layer_norm_eps: float = 1e-12
    dropout: float = 0.1
    attention_dropout: float = 0.1
    init: Literal["truncated_normal", "normal"] = "truncated_normal"
    init_scale: float = 0.02
    projection_init: Literal["same", "glorot"] = "same"  # ELECTRA: Glorot
    pad_id: int = 0
    zero_pad_row: bool = False  # RoBERTa starts the padding token's row at zero

    def __post_init__(self) -> None:
        sizes = ("layers", "hidden_size", "heads", "vocab_size", "max_length")
        for name in (*sizes, "mlp_size", "embedding_size", "groups"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"encoder.{name} is {value}: expected at least 1")
        for name in (*sizes, "mlp_size", "embedding_size", "token_types", "position_offset"):
            if (getattr(self, name) or 0) > LARGEST:
                raise ValueError(f"encoder.{name} is {getattr(self, name)}: expected at most 2^30")
        if self.hidden_size % self.heads:
            raise ValueError(
                f"encoder.hidden_size {self.hidden_size} does not divide into "
                f"encoder.heads {self.heads}: choose a multiple"
            )
        if self.layers % self.num_groups:
            raise ValueError(
                f"encoder.layers {self.layers} does not divide into encoder.groups "
                f"{self.num_groups}: choose a divisor"
            )
        for name in ("dropout", "attention_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"encoder.{name} is {getattr(self, name)}: expected 0 <= x < 1")

    @property
    def num_groups(self) -> int:
        return self.layers if self.groups is None else self.groups

    @property
    def embedding_width(self) -> int:
        return self.embedding_size or self.hidden_size

    @property
    def mlp_width(self) -> int:
        return self.mlp_size or 4 * self.hidden_size

    @property
    def head_size(self) -> int:
        return self.hidden_size // self.heads

    @property
    def position_rows(self) -> int:
        return self.max_length + self.position_offset


@dataclass(frozen=True)
class Masking:
    """Which tokens are hidden, and what stands in their place. See corruption.py."""

    unit: Literal["token", "word", "ngram", "span"] = "token"
    rate: float = 0.15
    # rate x length becomes a number of tokens. round: BERT; ceil: SpanBERT, of the text without
    # its special tokens; floor: fairseq, plus a draw from [0, 1)
    budget: Literal["round", "ceil", "floor"] = "round"
    max_predictions: int | None = None  # a cap per row; BERT's 20 at length 128 never binds there
    mask: float = 0.8  # fates of a chosen token: [MASK] ...
    random: float = 0.1  # ... another token; the rest stays as it is
    random_from: Literal["vocabulary", "words", "corpus"] = "vocabulary"  # words: no specials
    fate: Literal["token", "span"] = "token"  # what draws its fate on its own
    specials: bool = False  # fairseq also masks <s> and </s>
    max_words: int = 1  # longest n-gram (ALBERT 3) or span (SpanBERT 10)
    geometric_p: float = 0.2  # of SpanBERT's length law
    copies: int | None = None  # static masking: this many fixed masks per row; None: dynamic

    def __post_init__(self) -> None:
        if not 0 < self.rate < 1:
            raise ValueError(f"masking.rate is {self.rate}: expected 0 < x < 1")
        if self.mask < 0 or self.random < 0 or self.mask + self.random > 1 + 1e-9:
            raise ValueError(
                f"masking.mask {self.mask} and masking.random {self.random}: expected two "
                "shares whose sum is at most 1"
            )
        if self.copies is not None and self.copies < 1:
            raise ValueError(f"masking.copies is {self.copies}: expected at least 1, or None")
        if self.max_words < 1:
            raise ValueError(f"masking.max_words is {self.max_words}: expected at least 1")


@dataclass(frozen=True)
class Masked:
    """Masked language model, perhaps with a sentence pair and a span boundary term."""

    masking: Masking = field(default_factory=Masking)
    pair: bool = True  # next sentence or sentence order: one head, the data decides
    sbo_weight: float = 0.0  # of the span boundary term; 0: no such head
    sbo_positions: int = 15  # rows of its table: the longest span that is fully predicted
    sbo_size: int = 200  # width of its position embeddings


@dataclass(frozen=True)
class ReplacedTokens:
    """ELECTRA: a small generator fills masks, the discriminator finds what it replaced."""

    masking: Masking = field(default_factory=lambda: Masking(mask=0.85, random=0.0))
    generator_size: float = 0.25  # of the discriminator's width
    generator_layers: float = 1.0  # of its depth
    tied: Literal["all", "words", "none"] = "all"  # which embeddings both towers share
    weight: float = 50.0  # of the discriminator's loss
    temperature: float = 1.0  # of the generator's samples

    def __post_init__(self) -> None:
        for name in ("generator_size", "generator_layers", "temperature"):
            if getattr(self, name) <= 0:
                raise ValueError(f"objective.{name} is {getattr(self, name)}: expected above 0")

    def generator(self, encoder: Encoder) -> Encoder:
        """The generator's encoder: a fraction of the discriminator's (electra,
        run_pretraining.get_generator_config)."""
        size = round(encoder.hidden_size * self.generator_size)
        layers = round(encoder.layers * self.generator_layers)
        try:
            return dataclasses.replace(
                encoder,
                hidden_size=size,
                layers=layers,
                heads=max(1, size // 64),
                mlp_size=None,
                embedding_size=encoder.embedding_width,
                groups=None if encoder.groups is None else min(encoder.groups, layers),
            )
        except ValueError as e:
            raise ValueError(
                f"objective.generator_size {self.generator_size} and generator_layers "
                f"{self.generator_layers} do not make a generator: {e}"
            ) from None


@dataclass(frozen=True)
class Imported:
    """Nothing to learn: a network read from elsewhere, with the heads that came along."""

    family: Literal["bert", "albert", "roberta", "electra"] = "bert"  # whose tensors it had
    mlm: bool = False
    pooler: bool = False
    pair: bool = False
    rtd: bool = False

    @property
    def heads(self) -> tuple[str, ...]:
        return tuple(h for h in ("mlm", "pooler", "pair", "rtd") if getattr(self, h))


Kind = Literal["classification", "regression", "tagging", "choice", "qa"]
Glue = Literal["cola", "sst2", "mrpc", "stsb", "qqp", "mnli", "qnli", "rte", "wnli"]


@dataclass(frozen=True)
class Supervised:
    """Fine-tuning: one head over the encoder, learned from labelled rows.

    The head is a dense layer to the labels on `head`: the pooled first token, the first token
    itself (ELECTRA), or `gelu`, a dense layer and a GELU on the first token (ELECTRA in Hugging
    Face); for tagging it lies on every token. `qa` has two such layers or, `joint`, an end that
    is told the start and a classifier of answerable questions.
    """

    task: Kind | Glue = "classification"
    family: Literal["bert", "albert", "roberta", "electra"] = "bert"  # of the encoder
    head: Literal["pooler", "first", "gelu"] = "pooler"
    span: Literal["linear", "joint"] = "linear"
    labels: tuple[str, ...] = ()  # in the order of the logits; from the data
    dropout: float = 0.1  # before the head's dense layers; linear spans have none
    init: Literal["same", "glorot"] = "same"  # of the head's last layer; ELECTRA: Glorot
    scale: float = 1.0  # regression learns label / scale: 5 for STS-B in ELECTRA and RoBERTa

    def __post_init__(self) -> None:
        if not 0 <= self.dropout < 1:
            raise ValueError(f"objective.dropout is {self.dropout}: expected 0 <= x < 1")
        if not 0 < self.scale < float("inf"):
            raise ValueError(f"objective.scale is {self.scale}: expected above 0")

    @property
    def kind(self) -> Kind:
        """What the task asks for."""
        if self.task in typing.get_args(Glue):
            return "regression" if self.task == "stsb" else "classification"
        return typing.cast(Kind, self.task)

    @property
    def outputs(self) -> int:
        """Numbers that the head gives of a text or token; two while the labels are unknown."""
        return 1 if self.kind in ("regression", "choice") else len(self.labels) or 2

    @property
    def by_token(self) -> bool:
        """Whether the outputs of a row are one per token."""
        return self.kind == "tagging" or (self.kind == "qa" and self.span == "linear")

    @property
    def length(self) -> int:
        """Tokens of a row at most, where `data.length` does not say: BERT's and ELECTRA's for
        GLUE and SQuAD, ELECTRA's for tagging, ALBERT's and RoBERTa's for RACE."""
        return {"tagging": 256, "qa": 384, "choice": 512}.get(self.kind, 128)


Objective = Masked | ReplacedTokens | Imported | Supervised


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

    name: Literal["bert_adam", "fairseq_adam", "lamb", "adamw"] = "bert_adam"
    schedule: Literal["bert", "electra", "roberta", "spanbert"] = "bert"
    peak_lr: float = 1e-4
    warmup_steps: int = 10_000
    warmup_share: float | None = None  # of the run's steps, in place of warmup_steps
    decay_steps: int | None = None  # length of the schedule; None: run.steps
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-6
    weight_decay: float = 0.01
    decay: Literal["weights", "all"] = "weights"  # weights: neither biases nor layer norms
    layer_decay: float | None = None  # each layer's rate over that of the layer above; ELECTRA
    clip_norm: float | None = 1.0  # of the gradient's global norm; None: not clipped
    accumulate: int = 1  # micro-batches per step

    def __post_init__(self) -> None:
        if self.decay_steps is not None and self.decay_steps < 1:
            raise ValueError(f"optim.decay_steps is {self.decay_steps}: expected at least 1")
        if self.warmup_share is not None and not 0 <= self.warmup_share < 1:
            raise ValueError(f"optim.warmup_share is {self.warmup_share}: expected 0 <= x < 1")
        if self.layer_decay is not None and not 0 < self.layer_decay <= 1:
            raise ValueError(f"optim.layer_decay is {self.layer_decay}: expected 0 < x <= 1")
        if self.peak_lr < 0:
            raise ValueError(f"optim.peak_lr is {self.peak_lr}: expected at least 0")
        if self.accumulate < 1:
            raise ValueError(f"optim.accumulate is {self.accumulate}: expected at least 1")


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
    keep: int = 3  # newest checkpoints kept, beside the best
    dtype: Literal["float32", "bfloat16"] = "float32"
    init: str | None = None  # a model whose encoder and parameters the run begins with

    def __post_init__(self) -> None:
        if self.epochs is not None and self.epochs <= 0:
            raise ValueError(f"run.epochs is {self.epochs}: expected above 0")
        if self.evals_per_epoch is not None and self.evals_per_epoch <= 0:
            raise ValueError(f"run.evals_per_epoch is {self.evals_per_epoch}: expected above 0")
        if self.seed < 0:
            raise ValueError(f"run.seed is {self.seed}: expected at least 0")
        for name in ("steps", "log_every", "save_every", "eval_every", "eval_batches", "keep"):
            if getattr(self, name) < 1:
                raise ValueError(f"run.{name} is {getattr(self, name)}: expected at least 1")


@dataclass(frozen=True)
class Guard:
    """What a run does about numbers and phases that are not as they should be."""

    max_skips: int = 10  # updates left out in a row, at which the run stops
    spike: Literal["off", "warn", "skip"] = "warn"  # a loss far above the last ones
    spike_window: int = 128  # losses that it is compared with
    spike_factor: float = 10.0  # deviations above their median
    hang_factor: float = 20.0  # a phase that takes this many times its median ...
    hang_after: float = 300.0  # ... and this many seconds has its stacks written
    abort_after: float | None = None  # seconds in one phase that end the process

    def __post_init__(self) -> None:
        for name in ("max_skips", "spike_window"):
            if getattr(self, name) < 1:
                raise ValueError(f"guard.{name} is {getattr(self, name)}: expected at least 1")
        for name in ("spike_factor", "hang_factor", "hang_after", "abort_after"):
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
