"""ModernBERT-base, second phase: rows of 8,192 tokens (Warner et al. 2024, section 2.2.2).

    bert-jax prepare TEXT... --tokenizer TOK --segments full --length 8192 --out LONG
    bert-jax pretrain configs/modern_base_8k.py --init runs/modern_base --data.path LONG \
        --run.dtype bfloat16

149,655,232 parameters, those of modern_base. The base of the rotary frequencies in global layers
rises to 160,000; local layers keep 10,000. 250 billion tokens in batches of 576 rows, a constant
learning rate of 3e-4, no warmup.
"""

from bert_jax.config import MODERNBERT, replace

config = replace(
    MODERNBERT,
    encoder=dict(attention_output_dropout=0.1),
    data=dict(batch_size=576),
    optim=dict(peak_lr=3e-4, weight_decay=1e-5 / 3e-4, warmup_steps=0),
    run=dict(
        dir="runs/modern_base_8k",
        steps=53_000,
        # The first phase may have read the same text: another seed gives other orders and masks.
        seed=1,
        init_positions="config",
        remat="dots",
    ),
)
