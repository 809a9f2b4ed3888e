"""ModernBERT-large, 395,881,664 parameters with its head (Warner et al. 2024), first phase.

    bert-jax prepare TEXT... --tokenizer TOK --segments full --length 1024 --out CORPUS
    bert-jax pretrain configs/modern_large.py --data.path CORPUS --run.dtype bfloat16

Published: as modern_base, with 28 layers of width 1,024; a learning rate of 5e-4 (5e-5 after 900
billion tokens), a warmup of 2 billion tokens, batches that grow from 448 to 4,928 rows in 10
billion tokens (here constant), and weights that start as a tiled copy of the base model's (here at
random).
"""

from bert_jax.config import MODERNBERT, replace

config = replace(
    MODERNBERT,
    encoder=dict(
        layers=28,
        hidden_size=1024,
        heads=16,
        mlp_size=2624,
        max_length=1024,
        rotary_theta=10_000.0,
        attention_output_dropout=0.1,
    ),
    data=dict(batch_size=4928),
    optim=dict(peak_lr=5e-4, weight_decay=1e-5 / 5e-4, warmup_steps=400),
    run=dict(dir="runs/modern_large", steps=340_000),
)
