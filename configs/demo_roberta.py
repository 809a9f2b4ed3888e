"""A small RoBERTa that learns in minutes on two CPU cores, with the recipe of demo.py.

    bert-jax pretrain configs/demo_roberta.py --data.path CORPUS

The corpus needs a bpe tokenizer and `prepare --segments full --length 64`.
"""

from bert_jax.config import ROBERTA, demo_config, replace

config = replace(
    demo_config(ROBERTA),
    run=dict(dir="runs/demo_roberta"),
)
