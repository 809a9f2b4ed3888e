"""`protein_bert_small` for smoke tests: a few seconds on a CPU.

    bert-jax pretrain configs/protein_bert_tiny.py --data.path CORPUS

The corpus needs a tokenizer of `--kind chars` and `prepare --segments single`.
"""

from bert_jax.config import BERT, replace

config = replace(
    BERT,
    encoder=dict(layers=2, hidden_size=64, heads=4, positions="rotary"),
    objective=dict(sentence_pair=False),
    data=dict(batch_size=16),
    optim=dict(peak_lr=1e-3, warmup_steps=10),
    run=dict(dir="runs/protein_bert_tiny", steps=40, log_every=5, save_every=20, eval_every=20),
)
