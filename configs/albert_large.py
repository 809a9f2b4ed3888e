"""ALBERT-large v2 (no dropout), 17,847,474 parameters with both heads (Lan et al. 2019).

    bert-jax pretrain configs/albert_large.py --data.path CORPUS

Published: the same training as albert_base.
"""

from bert_jax.config import ALBERT, replace

config = replace(
    ALBERT,
    encoder=dict(layers=24, hidden_size=1024, heads=16),
    run=dict(dir="runs/albert_large"),
)
