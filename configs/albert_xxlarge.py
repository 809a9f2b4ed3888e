"""ALBERT-xxlarge v2 (no dropout), 223,158,450 parameters with both heads (Lan et al. 2019).

    bert-jax pretrain configs/albert_xxlarge.py --data.path CORPUS

Published: the same training as albert_base.
The paper says 235M parameters, which no way of counting its variables gives.
"""

from bert_jax.config import ALBERT, replace

config = replace(
    ALBERT,
    encoder=dict(layers=12, hidden_size=4096, heads=64),
    run=dict(dir="runs/albert_xxlarge"),
)
