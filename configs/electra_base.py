"""ELECTRA-base, 119,386,427 parameters with its generator of a third (Clark et al. 2020).

    bert-jax prepare TEXT... --tokenizer TOK --segments electra --length 512 --out CORPUS
    bert-jax pretrain configs/electra_base.py --data.path CORPUS

Published: batch 256, 2e-4, 10,000 of 766,000 steps of warm-up; four days on 16 TPUv3.
"""

from bert_jax.config import ELECTRA

config = ELECTRA
