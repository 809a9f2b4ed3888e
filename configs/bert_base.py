"""BERT-base uncased, 110,106,428 parameters with both heads (Devlin et al. 2018).

    bert-jax prepare TEXT... --tokenizer TOK --segments nsp --length 128 --out CORPUS
    bert-jax pretrain configs/bert_base.py --data.path CORPUS

Published: batch 256, one million steps, Adam 1e-4, 10,000 steps of warm-up, dropout .1; rows
of 128 tokens for nine tenths of the steps, then 512. Four days on 4 Cloud TPUs, as far as we
know (the constants but the rate, and the hardware, are quoted from memory of the paper).
The masks are dynamic here; `--objective.masking.num_static_masks 10` gives
the original's static ones.
"""

from bert_jax.config import BERT

config = BERT
