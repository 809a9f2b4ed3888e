"""RoBERTa-base, 124,696,665 parameters with its head (Liu et al. 2019).

    bert-jax tokenizer TEXT... --kind bpe --vocab-size 50265 --out TOK
    bert-jax prepare TEXT... --tokenizer TOK --segments full --length 512 --out CORPUS
    bert-jax pretrain configs/roberta_base.py --data.path CORPUS

Published: batch size 8,192, learning rate 6e-4, 500,000 steps of which 24,000 are warmup, Adam with
b1 = 0.9, b2 = 0.98 and eps = 1e-6, weight decay 0.01 of every parameter, no gradient clipping,
dynamic masking that may also mask <s> and </s>.
"""

from bert_jax.config import ROBERTA

config = ROBERTA
