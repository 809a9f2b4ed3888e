"""How large a study is: the sizes that all of its runs share."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from bert_jax.config import BERT, Optim, demo_config
from bert_jax.config.families import MODERN

Fields = dict[str, Any]


@dataclass(frozen=True)
class Preset:
    """Everything that the hypotheses leave open.

    The reference run is a masked language model of this size, trained for `steps` of
    `batch_size` rows of `length` tokens, or for `arm_flops`. Other runs see as many real tokens or
    cost as many FLOPs (variants.py).
    """

    name: str
    hypotheses: str  # letters, in the order of execution and of the page
    encoder: Fields
    sizes: dict[str, Fields]  # encoder fields that variants refer to by name
    vocab_size: int
    length: int
    qa_length: int  # length of rows for question answering, which need context
    batch_size: int
    steps: int
    optim: Optim
    train_rows: int  # of each task
    test_rows: int
    probe_rows: int  # of linear probes, which see every word of every layer
    tune_rates: tuple[float, ...]  # peak learning rates of fine-tuning to choose from
    flops_per_second: float  # of one process, matrix products: only for the time estimate
    # FLOPs of a run, as published with sparse look-ups; None: those of `steps` of the reference
    arm_flops: float | None = None
    many_seeds: int = 3  # of hypotheses that ask for many
    few_seeds: int = 1  # of the others
    pair_passes: int = 2  # over the text, in which pairs are drawn anew: the epochs of a run
    dtype: str = "float32"
    # the tasks that are averaged, where the folder of tasks has them
    tasks: tuple[str, ...] = ("question_type", "entailment", "ner")
    epochs: float = 3.0  # of fine-tuning
    eval_batches: int = 64
    run_overhead: float = 14.0  # seconds of a run outside its steps, for the estimate
    tune_seconds: float = 7.0  # of one fine-tuning, for the estimate
    max_words: tuple[int, int, int] = (40, 50, 16)  # of a text, a context, a question
    text: tuple[str, ...] = ("data/sample.txt",)
    # Share of a corpus's tokens that are not padding, by the corpus's name, measured on `text`.
    # Numbers of steps follow from it before a corpus exists. A corpus not listed counts as full.
    fill_ratios: dict[str, float] = field(default_factory=dict)

    def fill_ratio(self, corpus: str) -> float:
        return self.fill_ratios.get(corpus, 1.0)


# The head of every task. Encoders that are not trained on pairs have learned nothing about their
# first token, so texts are read by the mean of their tokens, which was better on the dev rows of
# question_type and tweet_score.
TASK_HEAD: Fields = dict(head="prediction", pooling="mean")

# The recipe of `make demo` (config.demo_config): with BERT's positions and AdamW a model of this
# size predicts word frequencies for thousands of steps, and nothing can be compared.
_DEMO: Fields = dict(
    layers=4,
    hidden_size=128,
    heads=4,
    mlp_size=352,
    dropout=0.0,
    attention_dropout=0.0,
    **MODERN,
)
_DEMO_SIZES: dict[str, Fields] = {
    "factorised": dict(embedding_size=64),
    "plain": dict(mlp_size=512),  # as many FLOPs as the gated MLP
}
_DEMO_OPTIM = demo_config(BERT).optim
_FILL_RATIOS = {
    "wordpiece-nsp-64": 0.980,
    "wordpiece-sop-64": 0.975,
    "wordpiece-electra-64": 0.985,
    "wordpiece-full-64": 0.945,
    "wordpiece-doc-64": 0.941,
    "wordpiece-single-64": 0.785,
    "wordpiece-single-128": 0.847,
    "unigram-sop-64": 0.976,
    "bpe-full-64": 0.948,
}

# Of encoders of this size: the best of six tasks were spread over all of these.
SMALL_RATES = (3e-4, 1e-3, 3e-3, 6e-3)

# As much training as `make demo`: the smallest in which a model beats counts of both neighbors on
# the sample text.
CPU = Preset(
    name="cpu",
    hypotheses="khc",
    encoder=_DEMO,
    sizes=_DEMO_SIZES,
    vocab_size=4000,
    length=64,
    qa_length=128,
    batch_size=32,
    steps=2_400,
    optim=_DEMO_OPTIM,
    train_rows=1500,
    test_rows=1000,
    probe_rows=500,
    tune_rates=(1e-3, 4e-3),
    flops_per_second=5.5e10,
    eval_batches=16,
    pair_passes=6,
    run_overhead=45.0,
    tune_seconds=15.0,
    fill_ratios=_FILL_RATIOS,
)

# What two quiet cores do in a minute, two runs at a time, as published with sparse look-ups:
# 5.3e12 of masked language modeling, 4.1e12 of replaced-token detection (measured on an AMD EPYC).
FLOPS_PER_MINUTE = 5e12

# The same model on a text of tens of millions of words, which --text names.
HOUR = replace(
    CPU,
    name="hour",
    hypotheses="hibcgak",
    vocab_size=8000,
    arm_flops=60 * FLOPS_PER_MINUTE,
    pair_passes=4,
    train_rows=3000,
    test_rows=2000,
    probe_rows=1000,
    tune_rates=SMALL_RATES,
    tune_seconds=40.0,
    run_overhead=120.0,
    tasks=("question_type", "sentiment", "entailment", "ner"),
    text=(),
)


def hour_preset(arm_minutes: float) -> Preset:
    """`HOUR` with runs of so many minutes of two quiet cores. They are counted in FLOPs, so a slow
    or shared machine trains the same models.

    ValueError: the minutes are not from 0.01 to 1000.
    """
    if not 0.01 <= arm_minutes <= 1000:
        raise ValueError(f"--arm-minutes is {arm_minutes}: expected 0.01 to 1000")
    return replace(HOUR, arm_flops=arm_minutes * FLOPS_PER_MINUTE)


# The first minutes of an ELECTRA-small: its encoder, rows and batch with fewer steps. The sample
# text is too small for its vocabulary, so pass --text.
GPU = Preset(
    name="gpu",
    hypotheses="hibagkjcdef",
    encoder=dict(
        layers=12,
        hidden_size=256,
        heads=4,
        mlp_size=680,
        embedding_size=128,
        dropout=0.1,
        attention_dropout=0.1,
        **MODERN,
    ),
    sizes={
        "factorised": dict(embedding_size=64),
        "wide": dict(hidden_size=896, heads=14, mlp_size=2400, embedding_size=128),
        "plain": dict(mlp_size=1024),
    },
    vocab_size=30522,
    length=128,
    qa_length=256,
    batch_size=128,
    steps=4_000,
    optim=Optim(name="bert_adam", schedule="electra", peak_lr=5e-4, warmup_ratio=0.1),
    dtype="bfloat16",
    few_seeds=3,
    train_rows=5_000,
    test_rows=2_000,
    probe_rows=2_000,
    tune_rates=(3e-4,),
    flops_per_second=8e13,
    run_overhead=40.0,
    tune_seconds=20.0,
    max_words=(100, 150, 30),
    fill_ratios={  # of the sample text with 24,000 pieces, unigram 13,000: it allows no more
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

# Checks that everything runs: for tests, and before a long study.
SMOKE = Preset(
    name="smoke",
    hypotheses="abcdefghijk",
    encoder=dict(layers=2, hidden_size=16, heads=2, dropout=0.0, attention_dropout=0.0, **MODERN),
    sizes={
        "factorised": dict(embedding_size=8),
        "wide": dict(hidden_size=32, heads=2, embedding_size=16),
        "plain": dict(mlp_size=72),
    },
    vocab_size=600,
    length=32,
    qa_length=64,
    batch_size=8,
    steps=8,
    optim=Optim(name="adamw", schedule="roberta", peak_lr=1e-3, warmup_ratio=0.1),
    many_seeds=2,
    tasks=("question_type", "ner"),
    train_rows=64,
    test_rows=32,
    probe_rows=32,
    epochs=1.0,
    tune_rates=(1e-3,),
    eval_batches=2,
    flops_per_second=1e10,
    max_words=(12, 12, 20),
)

PRESETS = {preset.name: preset for preset in (CPU, HOUR, GPU, SMOKE)}
