"""ModernBERT with replaced-token detection for smoke tests: a few seconds on a CPU.

    bert-jax pretrain configs/tiny_modern_electra.py --data.path CORPUS \
        --run.dir runs/tiny_modern_electra

The corpus needs `prepare --segments full`, with any tokenizer.
"""

from bert_jax.config import MODERNBERT, Masking, ReplacedTokens, replace

config = replace(
    MODERNBERT,
    encoder=dict(layers=4, hidden_size=64, heads=1, mlp_size=96, max_length=512, window=16),
    objective=ReplacedTokens(
        masking=Masking(mask_prob=1.0, random_prob=0.0),
        generator_size=1.0,
        generator_layers=0.5,
        generator_mlp="proportional",
        tied="gradient_disentangled",
    ),
    data=dict(batch_size=16),
    optim=dict(peak_lr=1e-3, warmup_steps=10, cooldown_ratio=0.2),
    run=dict(dir="runs/tiny_modern_electra", steps=40, log_every=5, save_every=20, eval_every=20),
)
