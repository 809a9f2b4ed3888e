"""A small RoBERTa that learns in minutes on two CPU cores, with the recipe of demo.py.

    bert-jax pretrain configs/demo_roberta.py --data.path CORPUS

The corpus needs a bpe tokenizer and `prepare --segments full --length 64`.

Learned positions and norms after layers are `demo_config(ROBERTA, original=True)`, which needs
rows of 16 and of 64 tokens as configs/demo_original.py does; it was not trained.
"""

from bert_jax.config import ROBERTA, demo_config, replace

config = replace(
    demo_config(ROBERTA),
    run=dict(dir="runs/demo_roberta"),
)
