"""RoBERTa in a few seconds on a CPU, for smoke tests, on a corpus of bpe rows
prepared with --segments full.

    bert-jax pretrain configs/tiny_roberta.py --data.path CORPUS --run.dir runs/tiny_roberta
"""

from bert_jax.config import ROBERTA, replace

config = replace(
    ROBERTA,
    encoder=dict(layers=2, hidden_size=64, heads=4),
    data=dict(batch_size=16),
    optim=dict(peak_lr=1e-3, warmup_steps=10),
    run=dict(dir="runs/tiny_roberta", steps=40, log_every=5, save_every=20, eval_every=20),
)
