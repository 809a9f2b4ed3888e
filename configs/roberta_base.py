"""RoBERTa-base, 124,696,665 parameters with its head (Liu et al. 2019).

    bert-jax tokenizer TEXT... --kind bpe --vocab-size 50265 --out TOK
    bert-jax prepare TEXT... --tokenizer TOK --segments full --length 512 --out CORPUS
    bert-jax pretrain configs/roberta_base.py --data.path CORPUS

Published: batch 8,192, 6e-4, 24,000 of 500,000 steps of warm-up, Adam .9/.98/1e-6, decay .01 on
everything, no clipping, dynamic masks that may hide <s> and </s>.
"""

from bert_jax.config import ROBERTA

config = ROBERTA
