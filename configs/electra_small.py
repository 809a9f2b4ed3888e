"""ELECTRA-small, 14,196,219 parameters with its generator of a quarter (Clark et al. 2020).

    bert-jax tokenizer TEXT... --kind wordpiece --vocab-size 30522 --out TOK
    bert-jax prepare TEXT... --tokenizer TOK --segments electra --length 128 --out CORPUS
    bert-jax pretrain configs/electra_small.py --data.path CORPUS

Published: batch 128, 5e-4, 10,000 of one million steps of warm-up; four days on one V100. The
released small model has a generator of full size: `--objective.generator-size 1`.
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
