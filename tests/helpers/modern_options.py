"""A tiny encoder with all options that are newer than the five papers."""

from typing import Any

from bert_jax.config import Experiment, replace
from tests.helpers import tiny_configs

OPTIONS: dict[str, Any] = dict(
    pre_norm=True,
    norm="rms",
    positions="rotary",
    gated_mlp=True,
    activation="silu",
    biases=False,
    window=4,
    global_every=3,
    token_types=0,
    dropout=0.0,
    attention_dropout=0.0,
)


def tiny_config(family: str = "bert", optimizer: str = "adamw", **encoder: Any) -> Experiment:
    return replace(
        tiny_configs.FAMILIES[family],
        encoder=OPTIONS | dict(layers=4) | encoder,
        optim=dict(
            name=optimizer,
            schedule="trapezoid",
            peak_lr=1e-2,
            warmup_steps=2,
            cooldown_ratio=0.2,
            eps=1e-6,
            weight_decay=0.01,
        ),
    )
