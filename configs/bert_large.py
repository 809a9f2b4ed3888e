"""BERT-large uncased, 336,226,108 parameters with both heads (Devlin et al. 2018).

    bert-jax pretrain configs/bert_large.py --data.path CORPUS

Published: the same training as bert_base. It took 4 days on 16 Cloud TPUs (from memory of the
paper).
"""

from bert_jax.config import BERT, replace

config = replace(
    BERT,
    encoder=dict(layers=24, hidden_size=1024, heads=16),
    run=dict(dir="runs/bert_large"),
)
