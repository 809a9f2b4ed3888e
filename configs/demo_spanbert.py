"""A small SpanBERT that learns in minutes on two CPU cores: size and optimiser of demo.py, on
wordpiece rows prepared with --segments single --length 64.

    bert-jax pretrain configs/demo_spanbert.py --data.path CORPUS
"""

from bert_jax.config import SPANBERT, demo_config, replace

config = replace(
    demo_config(SPANBERT),
    objective=dict(sbo_size=64),
    run=dict(dir="runs/demo_spanbert"),
)
