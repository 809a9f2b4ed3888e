"""A small ALBERT that learns in minutes on two CPU cores, with the recipe of demo.py.

    bert-jax pretrain configs/demo_albert.py --data.path CORPUS

The corpus needs a unigram tokenizer and `prepare --segments sop --length 64`.

Learned positions and norms after layers are `demo_config(ALBERT, original=True)`, which needs
rows of 16 and of 64 tokens as configs/demo_original.py does; it was not trained.
"""

from bert_jax.config import ALBERT, demo_config, replace

config = replace(
    demo_config(ALBERT),
    encoder=dict(embedding_size=64),
    run=dict(dir="runs/demo_albert"),
)
