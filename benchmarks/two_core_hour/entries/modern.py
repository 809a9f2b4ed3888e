"""Rotary positions, pre-norm, a gated MLP, no biases, no dropout; AdamW and a trapezoid."""

from benchmarks.two_core_hour.entry import Entry
from bert_jax.config import BERT, Optim, demo_config, replace

optim = Optim(
    name="adamw", schedule="trapezoid", peak_lr=2e-3, b2=0.98, warmup_ratio=0.05, cooldown_ratio=0.5
)
entry = Entry("modern encoder, AdamW", replace(demo_config(BERT), optim=optim))
