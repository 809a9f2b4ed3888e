"""The recipe of `make demo`: the encoder of modern.py with Muon."""

from benchmarks.two_core_hour.entry import Entry
from bert_jax.config import BERT, demo_config, replace

entry = Entry(
    "modern encoder, Muon (the recipe of `make demo`)",
    replace(demo_config(BERT), optim=dict(warmup_ratio=0.02)),
)
