"""A small ALBERT that learns in minutes on two CPU cores: size and optimiser of demo.py, on
unigram rows prepared with --segments sop --length 64.

    bert-jax pretrain configs/demo_albert.py --data.path CORPUS
"""

from bert_jax.config import ALBERT, demo_config, replace

config = replace(
    demo_config(ALBERT),
    encoder=dict(embedding_size=64),
    run=dict(dir="runs/demo_albert"),
)
