"""A base-size encoder with what came after the five papers, 134,394,426 parameters.

    bert-jax tokenizer TEXT... --kind wordpiece --vocab-size 30522 --out TOK
    bert-jax prepare TEXT... --tokenizer TOK --segments full --length 1024 --out CORPUS
    bert-jax pretrain configs/modern_base.py --data.path CORPUS --run.dtype bfloat16

No published recipe, but close to ModernBERT-base (Warner et al. 2024, and the constants of its
yamls/modernbert/modernbert-base-pretrain.yaml): 22 narrow layers, norms in front, rotary
positions, GeGLU, no biases, one layer in three sees the whole row and the others 64 tokens to
either side; three tenths of the tokens masked (MosaicBERT, Portes et al. 2023, too); AdamW .9/.98
with a decay of 1e-5 up to 8e-4 and level from there. It trained on 1.7 trillion tokens in batches
that grew to 4,608 rows of 1,024, warmed up for 3 billion, and cooled down only behind a phase of
longer rows; here it is a quarter of the tokens. Otherwise: no dropout at all (there .1 behind
attention), textbook AdamW for StableAdamW, batches of one size, plain initial values, a norm in
front of the first layer too, and a straight fall over the last tenth. Another optimiser for it is
`--optim.name muon --optim.weight-decay .1`. Not trained by us.
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
