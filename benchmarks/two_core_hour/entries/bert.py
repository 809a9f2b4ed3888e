"""BERT's recipe at the size of the demo: learned positions, norms after each layer, Adam, a linear
schedule, next sentences."""

from benchmarks.two_core_hour.entry import Entry
from bert_jax.config import BERT, Optim, replace

entry = Entry(
    "BERT's recipe",
    replace(
        BERT,
        encoder=dict(layers=4, hidden_size=128, heads=4, max_length=64),
        data=dict(batch_size=32),
        optim=Optim(peak_lr=1e-3, warmup_ratio=0.1),
    ),
)
