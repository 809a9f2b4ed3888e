"""A small SpanBERT that learns in minutes on two CPU cores, with the recipe of demo.py.

    bert-jax pretrain configs/demo_spanbert.py --data.path CORPUS

The corpus needs a wordpiece tokenizer and `prepare --segments single --length 64`.
"""

from bert_jax.config import SPANBERT, demo_config, replace

config = replace(
    demo_config(SPANBERT),
    objective=dict(sbo_size=64),
    run=dict(dir="runs/demo_spanbert"),
)
