"""A small RoBERTa that learns in minutes on two CPU cores: size and optimiser of demo.py, on
bpe rows prepared with --segments full --length 64.

    bert-jax pretrain configs/demo_roberta.py --data.path CORPUS
"""

from bert_jax.config import ROBERTA, demo_config, replace

config = replace(
    demo_config(ROBERTA),
    run=dict(dir="runs/demo_roberta"),
)
