"""ELECTRA's recipe at the size of the demo: a generator of a quarter of the width, learned
positions, Adam, ELECTRA's schedule."""

from benchmarks.two_core_hour.entry import Entry
from bert_jax.config import ELECTRA, Optim, replace

entry = Entry(
    "ELECTRA's recipe",
    replace(
        ELECTRA,
        encoder=dict(layers=4, hidden_size=128, heads=4, max_length=64, embedding_size=64),
        objective=dict(generator_size=0.25),
        data=dict(batch_size=32),
        optim=Optim(schedule="electra", peak_lr=1e-3, warmup_ratio=0.1),
    ),
    segments="electra",
)
