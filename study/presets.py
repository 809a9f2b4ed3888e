"""How large a study is: the sizes that all of its runs share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from bert_jax.config import Optim

Fields = dict[str, Any]


@dataclass(frozen=True)
class Preset:
    """Everything that the claims leave open.

    `steps` of `batch_size` rows of `length` tokens are the yardstick: what a masked language
    model of this size is trained for. Runs at equal tokens see as many that are no padding, runs
    at equal FLOPs cost as much (compute.py).
    """

    name: str
    encoder: Fields
    sizes: dict[str, Fields]  # of the encoders that claims call by name
    vocab_size: int
    length: int
    qa_length: int  # of the rows of claims about question answering, which need context
    batch_size: int
    steps: int
    optim: Optim
    dtype: str
    many: int  # seeds of the claims that ask for many
    few: int  # seeds of the others
    tasks: tuple[str, ...]  # those whose mean is taken, where the folder of tasks has them
    train_rows: int  # of each task
    test_rows: int
    probe_rows: int  # of linear models by layer, which see every word of every layer
    epochs: float
    tune_lr: float
    eval_batches: int
    speed: float  # model FLOPs a second, for the estimate alone
    seconds: tuple[float, float] = (14.0, 7.0)  # a run beside its steps, a fine-tuning with them
    lengths: tuple[int, int, int] = (40, 50, 16)  # most words: of a text, a context, a question
    text: tuple[str, ...] = field(default=("data/sample.txt",))
    # Of a corpus's rows the share that is no padding, by its name. Steps follow from it before
    # there is a corpus; read off the corpora of `text`. What is not here counts as full.
    filled: dict[str, float] = field(default_factory=dict)

    def real(self, corpus: str) -> float:
        return self.filled.get(corpus, 1.0)


CPU = Preset(
    name="cpu",
    encoder=dict(layers=4, hidden_size=64, heads=2, dropout=0.0, attention_dropout=0.0),
    sizes={
        "factorised": dict(embedding_size=16),
        "wide": dict(hidden_size=128, heads=4, embedding_size=64),
        "gated": dict(mlp_size=168),
    },
    vocab_size=4000,
    length=64,
    qa_length=128,
    batch_size=8,
    steps=2_400,
    # Small batches and a long warm-up: with 320 steps of 32 rows, at 3e-3 after a tenth of them, 11
    # of 40 arms never came .02 nat below the loss of word frequencies.
    optim=Optim(
        name="adamw", schedule="roberta", peak_lr=2e-3, warmup_ratio=0.3, b2=0.98, weight_decay=0.01
    ),
    dtype="float32",
    many=3,
    few=1,
    tasks=("question_type", "entailment", "ner"),
    train_rows=1500,
    test_rows=1000,
    probe_rows=500,
    epochs=3.0,
    tune_lr=1e-3,
    eval_batches=64,
    speed=4.2e10,
    seconds=(20.0, 15.0),
    filled={
        "wordpiece-nsp-64": 0.986,
        "wordpiece-sop-64": 0.983,
        "wordpiece-electra-64": 0.985,
        "wordpiece-full-64": 0.782,
        "wordpiece-doc-64": 0.780,
        "wordpiece-single-64": 0.785,
        "wordpiece-single-128": 0.847,
        "unigram-sop-64": 0.983,
        "bpe-full-64": 0.781,
    },
)

# The first minutes of an ELECTRA-small: its encoder, rows and batch; fewer steps. The sample text
# is too little for its vocabulary: it wants a --text.
GPU = Preset(
    name="gpu",
    encoder=dict(
        layers=12,
        hidden_size=256,
        heads=4,
        embedding_size=128,
        dropout=0.1,
        attention_dropout=0.1,
    ),
    sizes={
        "factorised": dict(embedding_size=64),
        "wide": dict(hidden_size=896, heads=14, embedding_size=128),
        "gated": dict(mlp_size=680),
    },
    vocab_size=30522,
    length=128,
    qa_length=256,
    batch_size=128,
    steps=4_000,
    optim=Optim(name="bert_adam", schedule="electra", peak_lr=5e-4, warmup_ratio=0.1),
    dtype="bfloat16",
    many=3,
    few=3,
    tasks=("question_type", "entailment", "ner"),
    train_rows=5_000,
    test_rows=2_000,
    probe_rows=2_000,
    epochs=3.0,
    tune_lr=3e-4,
    eval_batches=64,
    speed=8e13,
    seconds=(40.0, 20.0),
    lengths=(100, 150, 30),
    filled={  # of the sample text by 24,000 pieces, unigram 13,000: it allows no more
        "wordpiece-nsp-128": 0.948,
        "wordpiece-sop-128": 0.940,
        "wordpiece-electra-128": 0.971,
        "wordpiece-full-128": 0.869,
        "wordpiece-doc-128": 0.863,
        "wordpiece-single-128": 0.864,
        "wordpiece-single-256": 0.907,
        "unigram-sop-128": 0.944,
        "bpe-full-128": 0.867,
    },
)

# Whether everything runs: a minute of each kind, for tests and before a long study.
SMOKE = Preset(
    name="smoke",
    encoder=dict(layers=2, hidden_size=16, heads=2, dropout=0.0, attention_dropout=0.0),
    sizes={
        "factorised": dict(embedding_size=8),
        "wide": dict(hidden_size=32, heads=2, embedding_size=16),
        "gated": dict(mlp_size=40),
    },
    vocab_size=600,
    length=32,
    qa_length=64,
    batch_size=8,
    steps=8,
    optim=Optim(name="adamw", schedule="roberta", peak_lr=1e-3, warmup_ratio=0.1),
    dtype="float32",
    many=2,
    few=1,
    tasks=("question_type", "ner"),
    train_rows=64,
    test_rows=32,
    probe_rows=32,
    epochs=1.0,
    tune_lr=1e-3,
    eval_batches=2,
    speed=1e10,
    lengths=(12, 12, 20),
)

PRESETS = {scale.name: scale for scale in (CPU, GPU, SMOKE)}
