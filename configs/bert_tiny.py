"""BERT-tiny uncased, 2 layers of width 128 (Turc et al. 2019).

    bert-jax pretrain configs/bert_tiny.py --data.path CORPUS

Its training settings are not published; this config uses those of BERT-base.
"""

from bert_jax.config import BERT, replace

config = replace(
    BERT,
    encoder=dict(layers=2, hidden_size=128, heads=2),
    run=dict(dir="runs/bert_tiny"),
)
