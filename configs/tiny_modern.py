"""ModernBERT for smoke tests: a few seconds on a CPU.

    bert-jax pretrain configs/tiny_modern.py --data.path CORPUS --run.dir runs/tiny_modern

The corpus needs `prepare --segments full`, with any tokenizer.
"""

from bert_jax.config import MODERNBERT, replace

config = replace(
    MODERNBERT,
    encoder=dict(layers=4, hidden_size=64, heads=4, mlp_size=96, max_length=512, window=16),
    data=dict(batch_size=16),
    optim=dict(peak_lr=1e-3, warmup_steps=10, cooldown_ratio=0.2),
    run=dict(dir="runs/tiny_modern", steps=40, log_every=5, save_every=20, eval_every=20),
)
