"""What `make demo` trains: a small BERT that learns in minutes on two CPU cores.

    bert-jax pretrain configs/demo.py --data.path CORPUS

It differs from BERT where minutes ask for it: 4 layers of width 128, rows of 64 tokens, a
learning rate of 2e-3, .98 for the second moment and Adam's bias correction. With BERT's own
constants a model of this size stays on the plateau of word frequencies all that time.
"""

from bert_jax.config import BERT, replace

config = replace(
    BERT,
    encoder=dict(layers=4, hidden_size=128, heads=4, max_length=64, dropout=0.0,
                 attention_dropout=0.0),
    data=dict(batch_size=64),
    optim=dict(name="adamw", schedule="roberta", peak_lr=2e-3, warmup_steps=200, b2=0.98),
    run=dict(dir="runs/demo", steps=3000, log_every=50, save_every=500, eval_every=250,
             eval_batches=16),
)  # fmt: skip
