"""ELECTRA-small, 14,196,219 parameters with its generator of 1/4 of the width (Clark et al. 2020).

    bert-jax tokenizer TEXT... --kind wordpiece --vocab-size 30522 --out TOK
    bert-jax prepare TEXT... --tokenizer TOK --segments electra --length 128 --out CORPUS
    bert-jax pretrain configs/electra_small.py --data.path CORPUS

Published: batch size 128, learning rate 5e-4, 1,000,000 steps of which 10,000 are warmup; 4 days
on one V100. The generator of the released small model has full size:
`--objective.generator-size 1`.
"""

from bert_jax.config import ELECTRA, replace

config = replace(
    ELECTRA,
    encoder=dict(hidden_size=256, heads=4, embedding_size=128),
    objective=dict(generator_size=0.25),
    data=dict(batch_size=128),
    optim=dict(peak_lr=5e-4),
    run=dict(dir="runs/electra_small", steps=1_000_000),
)
