"""RoBERTa-large, 355,411,033 parameters with its head (Liu et al. 2019).

    bert-jax pretrain configs/roberta_large.py --data.path CORPUS

Published: the same training as roberta_base, but with learning rate 4e-4 and 30,000 warmup steps;
about a day on 1,024 V100 per 100,000 steps.
"""

from bert_jax.config import ROBERTA, replace

config = replace(
    ROBERTA,
    encoder=dict(layers=24, hidden_size=1024, heads=16),
    optim=dict(peak_lr=4e-4, warmup_steps=30_000),
    run=dict(dir="runs/roberta_large"),
)
