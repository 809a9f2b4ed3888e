"""SpanBERT for smoke tests: a few seconds on a CPU.

    bert-jax pretrain configs/tiny_spanbert.py --data.path CORPUS --run.dir runs/tiny_spanbert

The corpus needs a wordpiece tokenizer and `prepare --segments single`.
"""

from bert_jax.config import SPANBERT, replace

config = replace(
    SPANBERT,
    encoder=dict(layers=2, hidden_size=64, heads=4),
    objective=dict(sbo_size=32),
    data=dict(batch_size=16),
    optim=dict(peak_lr=1e-3, warmup_steps=10),
    run=dict(dir="runs/tiny_spanbert", steps=40, log_every=5, save_every=20, eval_every=20),
)
