"""ELECTRA-large, 354,655,291 parameters with its generator of a quarter (Clark et al. 2020).

    bert-jax pretrain configs/electra_large.py --data.path CORPUS

Published: a quarter of the tokens masked, batch 2,048, 2e-4, 400,000 steps (1.75 million for
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
