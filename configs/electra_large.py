"""ELECTRA-large, 354,655,291 parameters with its generator of 1/4 of the width (Clark et al. 2020).

    bert-jax pretrain configs/electra_large.py --data.path CORPUS

Published: masking rate 25%, batch size 2,048, learning rate 2e-4, 400,000 steps (1.75 million for
the released model).
"""

from bert_jax.config import ELECTRA, replace

config = replace(
    ELECTRA,
    encoder=dict(layers=24, hidden_size=1024, heads=16),
    objective=dict(generator_size=0.25, masking=dict(rate=0.25)),
    data=dict(batch_size=2048),
    run=dict(dir="runs/electra_large", steps=400_000),
)
