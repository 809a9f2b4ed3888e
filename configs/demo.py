"""The model of `make demo`: a small BERT that learns in minutes on two CPU cores.

    bert-jax pretrain configs/demo.py --data.path CORPUS

Its optimizer is not BERT's; `bert_jax.config.demo_config` explains why.
"""

from bert_jax.config import BERT, demo_config, replace

config = replace(demo_config(BERT), run=dict(dir="runs/demo"))
