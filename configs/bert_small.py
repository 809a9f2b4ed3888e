"""BERT-small uncased, 4 layers of width 512 (Turc et al. 2019).

    bert-jax pretrain configs/bert_small.py --data.path CORPUS

Its training settings are not published; this config uses those of BERT-base.
"""

from bert_jax.config import BERT, replace

config = replace(
    BERT,
    encoder=dict(layers=4, hidden_size=512, heads=8),
    run=dict(dir="runs/bert_small"),
)
