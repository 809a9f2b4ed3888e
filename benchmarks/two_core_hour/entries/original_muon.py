"""BERT's own architecture, which starts to learn on rows of 16 tokens; Muon and a trapezoid."""

from benchmarks.two_core_hour.entry import Entry
from bert_jax.config import BERT, demo_config, replace

entry = Entry(
    "BERT's architecture, short rows first, Muon",
    replace(demo_config(BERT, original=True), optim=dict(warmup_ratio=0.02)),
    lengths=(16, 64),
)
