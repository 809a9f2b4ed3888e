"""ALBERT-xlarge v2 (no dropout), 59,021,490 parameters with both heads (Lan et al. 2019).

    bert-jax pretrain configs/albert_xlarge.py --data.path CORPUS

Published: the same training as albert_base.
Its heads have width 128, unlike those of the other sizes.
"""

from bert_jax.config import ALBERT, replace

config = replace(
    ALBERT,
    encoder=dict(layers=24, hidden_size=2048, heads=16),
    run=dict(dir="runs/albert_xlarge"),
)
