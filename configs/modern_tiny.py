"""ModernBERT for small budgets, the sizes of Ettin-17M: 16,913,600 parameters with its head
(Weller et al. 2025).

    bert-jax pretrain configs/modern_tiny.py --data.path CORPUS --run.dtype bfloat16

7 layers of width 256 with modern_base's options. The batch size, learning rate and length are our
choice for one GPU.
"""

from bert_jax.config import MODERNBERT, replace

config = replace(
    MODERNBERT,
    encoder=dict(
        layers=7, hidden_size=256, heads=4, mlp_size=384, max_length=1024, rotary_theta=10_000.0
    ),
    data=dict(batch_size=512),
    optim=dict(peak_lr=1e-3, warmup_steps=2_000, cooldown_ratio=0.1),
    run=dict(dir="runs/modern_tiny", steps=100_000),
)
