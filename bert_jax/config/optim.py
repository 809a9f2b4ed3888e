"""The section `optim`: optimizer and learning rate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bert_jax.config.freeze import parse_freeze
from bert_jax.config.ranges import MAX_STEPS, RangeChecks, check_ranges


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
