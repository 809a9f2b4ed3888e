"""A small ELECTRA that learns in minutes on two CPU cores, with the recipe of demo.py.

    bert-jax pretrain configs/demo_electra.py --data.path CORPUS

The corpus needs a wordpiece tokenizer and `prepare --segments electra --length 64`.

Learned positions and norms after layers are `demo_config(ELECTRA, original=True)`, which needs
rows of 16 and of 64 tokens as configs/demo_original.py does; it was not trained.
"""

from bert_jax.config import ELECTRA, demo_config, replace

config = replace(
    demo_config(ELECTRA),
    encoder=dict(embedding_size=64),
    objective=dict(generator_size=0.25),
    data=dict(batch_size=16),
    run=dict(dir="runs/demo_electra", steps=4800),
)
