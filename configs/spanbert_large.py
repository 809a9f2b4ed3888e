"""SpanBERT-large cased, 336,998,976 parameters with both heads (Joshi et al. 2019).

    bert-jax pretrain configs/spanbert_large.py --data.path CORPUS

Published: batch size 256, learning rate 1e-4, 2,400,000 steps of which 10,000 are warmup; 15 days
on 32 V100.
"""

from bert_jax.config import SPANBERT, replace

config = replace(
    SPANBERT,
    encoder=dict(layers=24, hidden_size=1024, heads=16),
    data=dict(batch_size=256),
    optim=dict(peak_lr=1e-4),
    run=dict(dir="runs/spanbert_large", steps=2_400_000),
)
