"""A base-size encoder with later improvements, 134,394,426 parameters.

    bert-jax tokenizer TEXT... --kind wordpiece --vocab-size 30522 --out TOK
    bert-jax prepare TEXT... --tokenizer TOK --segments full --length 1024 --out CORPUS
    bert-jax pretrain configs/modern_base.py --data.path CORPUS --run.dtype bfloat16

This is not a published config, but close to ModernBERT-base (Warner et al. 2024; numbers from its
yamls/modernbert/modernbert-base-pretrain.yaml): 22 narrow layers, pre-norm, rotary positions,
GeGLU, no biases; every third layer attends to the whole row, the others to 64 tokens on either
side. 30% of the tokens are masked (also MosaicBERT, Portes et al. 2023). AdamW has betas 0.9 and
0.98, weight decay 1e-5 and a constant learning rate of 8e-4 after warmup. ModernBERT trained on 1.7
trillion tokens in batches that grew to 4,608 rows of 1,024 tokens, warmed up for 3 billion tokens,
and decayed only after a phase of longer rows. This config trains on a quarter of the tokens.

Other differences: no dropout (ModernBERT: 0.1 after attention), AdamW in place of StableAdamW,
constant batch size, standard initial values, a norm before the first layer, and linear decay in the
last 10% of the steps. Another optimizer is `--optim.name muon --optim.weight-decay .1`. We have not
trained this model.
"""

from bert_jax.config import BERT, Masked, Masking, Optim, replace

config = replace(
    BERT,
    encoder=dict(
        layers=22,
        mlp_size=1152,
        max_length=1024,
        token_types=0,
        layer_norm_eps=1e-5,
        dropout=0.0,
        attention_dropout=0.0,
        pre_norm=True,
        positions="rotary",
        gated_mlp=True,
        biases=False,
        window=64,
    ),
    objective=Masked(masking=Masking(rate=0.3), sentence_pair=False),
    data=dict(batch_size=4096),
    optim=Optim(
        name="adamw",
        schedule="trapezoid",
        peak_lr=8e-4,
        warmup_steps=700,
        b2=0.98,
        weight_decay=1e-5,
    ),
    run=dict(dir="runs/modern_base", steps=100_000),
)
