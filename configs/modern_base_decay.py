"""ModernBERT-base, third phase: decay (Warner et al. 2024, section 2.2.2).

    bert-jax pretrain configs/modern_base_decay.py --init runs/modern_base_8k --data.path LONG \
        --run.dtype bfloat16

149,655,232 parameters, those of modern_base_8k. 50 billion tokens in rows of 8,192 and batches of
576; the learning rate falls from 3e-4 to 0 as 1 - sqrt(t).
"""

from bert_jax.config import MODERNBERT, replace

config = replace(
    MODERNBERT,
    encoder=dict(attention_output_dropout=0.1),
    data=dict(batch_size=576),
    optim=dict(
        peak_lr=3e-4,
        weight_decay=1e-5 / 3e-4,
        warmup_steps=0,
        cooldown_ratio=1.0,
        cooldown_shape="sqrt",
    ),
    run=dict(
        dir="runs/modern_base_decay",
        steps=10_600,
        # The other phases may have read the same text: another seed gives other orders and masks.
        seed=2,
        init_positions="config",
        remat="dots",
    ),
)
