"""`protein_electra_small` for smoke tests: a few seconds on a CPU.

    bert-jax pretrain configs/protein_electra_tiny.py --data.path CORPUS

The corpus needs a tokenizer of `--kind chars` and `prepare --segments single`.
"""

from bert_jax.config import ELECTRA, replace

config = replace(
    ELECTRA,
    encoder=dict(layers=2, hidden_size=64, heads=4, embedding_size=32, positions="rotary"),
    objective=dict(generator_size=0.5),
    data=dict(batch_size=16),
    optim=dict(peak_lr=1e-3, warmup_steps=10),
    run=dict(dir="runs/protein_electra_tiny", steps=40, log_every=5, save_every=20, eval_every=20),
)
