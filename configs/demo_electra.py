"""A small ELECTRA that learns in minutes on two CPU cores: size and optimiser of demo.py, on
wordpiece rows prepared with --segments electra --length 64.

    bert-jax pretrain configs/demo_electra.py --data.path CORPUS
"""

from bert_jax.config import ELECTRA, demo_config, replace

config = replace(
    demo_config(ELECTRA),
    encoder=dict(embedding_size=64),
    objective=dict(generator_size=0.5),
    run=dict(dir="runs/demo_electra"),
)
