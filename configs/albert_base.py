"""ALBERT-base v2 (no dropout), 11,813,810 parameters with both heads (Lan et al. 2019).

    bert-jax tokenizer TEXT... --kind unigram --vocab-size 30000 --out TOK
    bert-jax prepare TEXT... --tokenizer TOK --segments sop --length 512 --out CORPUS
    bert-jax pretrain configs/albert_base.py --data.path CORPUS

Published: LAMB, batch size 4,096, learning rate 1.76e-3, 125,000 steps of which 3,125 are warmup.
The released models were trained for millions of steps more. The authors used 20 predictions per
row of 512 tokens (google-research/albert, issue 51).
"""

from bert_jax.config import ALBERT

config = ALBERT
