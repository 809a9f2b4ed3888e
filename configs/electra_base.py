"""ELECTRA-base, 119,386,427 parameters with its generator of 1/3 of the width (Clark et al. 2020).

    bert-jax prepare TEXT... --tokenizer TOK --segments electra --length 512 --out CORPUS
    bert-jax pretrain configs/electra_base.py --data.path CORPUS

Published: batch size 256, learning rate 2e-4, 766,000 steps of which 10,000 are warmup; 4 days on
16 TPUv3.
"""

from bert_jax.config import ELECTRA

config = ELECTRA
