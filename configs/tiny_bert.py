"""BERT for smoke tests: a few seconds on a CPU.

    bert-jax pretrain configs/tiny_bert.py --data.path CORPUS --run.dir runs/tiny_bert

The corpus needs a wordpiece tokenizer and `prepare --segments nsp`.
"""

from bert_jax.config import BERT, replace

config = replace(
    BERT,
    encoder=dict(layers=2, hidden_size=64, heads=4),
    data=dict(batch_size=16),
    optim=dict(peak_lr=1e-3, warmup_steps=10),
    run=dict(dir="runs/tiny_bert", steps=40, log_every=5, save_every=20, eval_every=20),
)
