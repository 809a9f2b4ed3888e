"""A small SpanBERT that learns in minutes on two CPU cores, with the recipe of demo.py.

    bert-jax pretrain configs/demo_spanbert.py --data.path CORPUS

The corpus needs a wordpiece tokenizer and `prepare --segments single --length 64`.

Learned positions and norms after layers are `demo_config(SPANBERT, original=True)`, which needs
rows of 16 and of 64 tokens as configs/demo_original.py does; it was not trained.
"""

from bert_jax.config import SPANBERT, demo_config, replace

config = replace(
    demo_config(SPANBERT),
    objective=dict(sbo_size=64),
    run=dict(dir="runs/demo_spanbert"),
)
