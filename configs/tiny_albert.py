"""ALBERT for smoke tests: a few seconds on a CPU.

    bert-jax pretrain configs/tiny_albert.py --data.path CORPUS --run.dir runs/tiny_albert

The corpus needs a unigram tokenizer and `prepare --segments sop`.
"""

from bert_jax.config import ALBERT, replace

config = replace(
    ALBERT,
    encoder=dict(layers=2, hidden_size=64, heads=4, embedding_size=32),
    data=dict(batch_size=16),
    optim=dict(peak_lr=1e-3, warmup_steps=10),
    run=dict(dir="runs/tiny_albert", steps=40, log_every=5, save_every=20, eval_every=20),
)
