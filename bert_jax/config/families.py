"""The families: base-size configs as published, fine-tuning configs and heads.

The sources of the numbers are in the docstrings of configs/.
"""

from __future__ import annotations

import dataclasses
import typing
from typing import Any

from bert_jax.config.encoder import Encoder
from bert_jax.config.guard import Guard
from bert_jax.config.model_types import ROBERTA_LIKE, ModelType
from bert_jax.config.objectives import Masked, Masking, ReplacedTokens
from bert_jax.config.optim import Optim
from bert_jax.config.run import Run
from bert_jax.config.schema import Data, Experiment
from bert_jax.config.serialization import replace
from bert_jax.config.supervised import GlueTask, Supervised, TaskType

BERT = Experiment(
    data=Data(batch_size=256),
    run=Run(dir="runs/bert_base"),
)

ALBERT = Experiment(
    encoder=Encoder(
        groups=1,
        embedding_size=128,
        vocab_size=30000,
        activation="gelu_tanh",
        dropout=0.0,
        attention_dropout=0.0,
    ),
    objective=Masked(masking=Masking(granularity="ngram", max_ngram=3, max_predictions=20)),
    data=Data(batch_size=4096),
    optim=Optim(name="lamb", peak_lr=1.76e-3, warmup_steps=3125),
    run=Run(dir="runs/albert_base", steps=125_000),
)

ROBERTA = Experiment(
    encoder=Encoder(
        vocab_size=50265,
        position_offset=2,
        token_types=0,
        layer_norm_eps=1e-5,
        init="normal",
        pad_id=1,
        zero_pad_row=True,
    ),
    objective=Masked(
        masking=Masking(budget="floor", mask_special_tokens=True, random_from="words"),
        sentence_pair=False,
    ),
    data=Data(batch_size=8192),
    optim=Optim(
        name="fairseq_adam",
        schedule="roberta",
        peak_lr=6e-4,
        warmup_steps=24_000,
        b2=0.98,
        decay="all",
        clip_norm=None,
    ),
    run=Run(dir="runs/roberta_base", steps=500_000),
)

ELECTRA = Experiment(
    encoder=Encoder(projection_init="glorot"),
    objective=ReplacedTokens(generator_size=1 / 3),
    data=Data(batch_size=256),
    optim=Optim(schedule="electra", peak_lr=2e-4),
    run=Run(dir="runs/electra_base", steps=766_000),
)

SPANBERT = Experiment(
    encoder=Encoder(vocab_size=28996, init="normal"),
    objective=Masked(
        masking=Masking(
            granularity="span",
            max_ngram=10,
            budget="ceil",
            replace_per="span",
            random_from="corpus",
        ),
        sentence_pair=False,
        sbo_weight=1.0,
    ),
    data=Data(batch_size=2048),
    optim=Optim(
        name="fairseq_adam",
        schedule="spanbert",
        peak_lr=5e-4,
        eps=1e-8,
        weight_decay=0.1,
        decay="all",
    ),
    run=Run(dir="runs/spanbert_base", steps=300_000),
)

MODERNBERT = Experiment(
    encoder=Encoder(
        layers=22,
        mlp_size=1152,
        vocab_size=50368,
        max_length=8192,
        token_types=0,
        layer_norm_eps=1e-5,
        dropout=0.0,
        attention_dropout=0.0,
        pad_id=50283,
        pre_norm=True,
        first_norm=False,
        positions="rotary",
        rotary_theta=160_000.0,
        local_rotary_theta=10_000.0,
        gated_mlp=True,
        biases=False,
        window=64,
        residual_init="scaled",
    ),
    objective=Masked(masking=Masking(rate=0.3), sentence_pair=False),
    data=Data(batch_size=4608),
    optim=Optim(
        name="stable_adamw",
        schedule="trapezoid",
        peak_lr=8e-4,
        warmup_steps=2_500,
        cooldown_ratio=0.0,
        b2=0.98,
        weight_decay=1e-5 / 8e-4,  # published without the rate's factor: 1e-5 at the peak
        clip_norm=None,
    ),
    run=Run(dir="runs/modern_base", steps=376_000),
)

# One fine-tuning config for any model, and those of the five papers (configs/finetune*.py). Their
# heads come from `head_fields` for the model's family, unless a config file sets a field of the
# objective: then all of its fields count.
FINETUNE = Experiment(
    objective=Supervised(),
    data=Data(batch_size=32),
    optim=Optim(name="adamw", schedule="roberta", peak_lr=1e-4, warmup_ratio=0.1, eps=1e-8),
    run=Run(
        dir="runs/finetune",
        epochs=5.0,
        evals_per_epoch=1.0,
        log_every=20,
        max_to_keep=1,
        unroll=1,  # the step is compiled for each padded length; without a loop it takes far longer
    ),
    guard=Guard(spike="off"),  # losses of small batches vary too much
)
FINETUNE_BERT = replace(
    FINETUNE,
    optim=Optim(peak_lr=3e-5, warmup_ratio=0.1),
    run=dict(dir="runs/finetune_bert", epochs=3.0),
)
FINETUNE_ALBERT = replace(
    FINETUNE,
    optim=Optim(peak_lr=2e-5, warmup_ratio=0.06),
    run=dict(dir="runs/finetune_albert", epochs=10.0),
)
FINETUNE_ROBERTA = replace(
    FINETUNE,
    data=dict(batch_size=16),
    optim=replace(ROBERTA.optim, peak_lr=2e-5, warmup_ratio=0.06, weight_decay=0.1),
    run=dict(dir="runs/finetune_roberta", epochs=10.0),
)
FINETUNE_ELECTRA = replace(
    FINETUNE,
    optim=Optim(schedule="electra", peak_lr=1e-4, warmup_ratio=0.1, layer_decay=0.8),
    run=dict(dir="runs/finetune_electra", epochs=3.0),
)
FINETUNE_SPANBERT = replace(
    FINETUNE,
    optim=Optim(schedule="roberta", peak_lr=2e-5, warmup_ratio=0.1),
    run=dict(dir="runs/finetune_spanbert", epochs=4.0, evals_per_epoch=10.0),
)


def demo_config(base: Experiment, original: bool = False) -> Experiment:
    """A family at a size that learns in minutes on two CPU cores: 4 layers of width 128, and 4.9
    million tokens in rows of 64.

    The family's are: objective, masking, embeddings, sharing of parameters. Later ideas are: rotary
    positions, pre-norm, a gated MLP (of width 352, which costs the same), no biases, no dropout,
    Muon, and a learning rate that stays at its peak and then falls.

    With learned positions a model of this size predicts word frequencies for thousands of steps.
    `original` keeps the family's own architecture, and gets it to learn with rows of 16 tokens
    first, in which positions matter less.
    """
    if original:
        encoder, stages = dict(mlp_size=512), "16x128=0.5,64x32=0.5"
    else:
        encoder, stages = dict(MODERN, mlp_size=352), None
    return replace(
        base,
        encoder=dict(
            layers=4,
            hidden_size=128,
            heads=4,
            max_length=64,
            dropout=0.0,
            attention_dropout=0.0,
            **encoder,
        ),
        data=dict(batch_size=32, stages=stages),
        optim=Optim(
            name="muon", schedule="trapezoid", peak_lr=3e-3, warmup_steps=100, cooldown_ratio=0.5
        ),
        run=dict(steps=2400, log_every=20, save_every=600, eval_every=200, eval_batches=16),
    )


# Published after the five families: ModernBERT's choice (Warner et al. 2024), without windows.
MODERN: dict[str, Any] = dict(pre_norm=True, positions="rotary", gated_mlp=True, biases=False)


def head_fields(family: str, task_type: TaskType, unanswerable: bool = True) -> dict[str, Any]:
    """The fields `head`, `span`, `init`, `dropout` and perhaps `pooling` that a family's own code
    uses for a task.

    bert, spanbert   pooled first token; dropout 0.1 whatever the encoder's dropout is
    albert           the same; joint spans if questions may have no answer (`unanswerable`)
    roberta          dense layer and tanh on the first token; no dropout in fairseq (0.1 in
                     Hugging Face)
    electra          first token; Glorot initialization; joint spans; no dropout for tagging
    xlm-roberta, camembert   as roberta
    modernbert       dense layer, GELU and norm on the mean of the tokens (the choice of the
                     published files) or on each token; no dropout
    distilbert       dense layer and ReLU on the first token, dropout 0.2 after it; 0.1 for tags and
                     spans (Hugging Face's, which is where it was published)

    ValueError: unknown family.
    """
    families = (*typing.get_args(ModelType), "spanbert")
    if family not in families:
        raise ValueError(f"family is {family!r}: expected {', '.join(families)}")
    fields: dict[str, Any] = dict(head="pooler", span="linear", init="same", dropout=0.1)
    if family == "albert" and unanswerable:
        fields |= dict(span="joint")
    if family in ROBERTA_LIKE:
        fields |= dict(dropout=0.0)
    if family == "modernbert":
        fields |= dict(head="prediction", pooling="mean", dropout=0.0)
    if family == "distilbert":
        text_label = task_type not in ("tagging", "qa")
        fields |= dict(head="relu", dropout=0.2 if text_label else 0.1)
    if family == "electra":
        fields |= dict(head="first", span="joint", init="glorot")
        fields |= dict(dropout=0.0) if task_type == "tagging" else {}
    return fields


def supervised_objective(
    family: str,
    task: TaskType | GlueTask,
    labels: tuple[str, ...] = (),
    unanswerable: bool = True,
    **changes: Any,
) -> Supervised:
    """The objective of a task as the family's own code has it, with `changes` to its fields.
    RoBERTa and ELECTRA scale STS-B's scores from 0..5 to 0..1.

    ValueError: unknown family.
    """
    objective = Supervised(task=task, labels=labels)
    fields = head_fields(family, objective.task_type, unanswerable)
    fields["family"] = typing.cast(Any, "bert" if family == "spanbert" else family)
    fields["scale"] = 5.0 if task == "stsb" and family in (*ROBERTA_LIKE, "electra") else 1.0
    return dataclasses.replace(objective, **fields | changes)
