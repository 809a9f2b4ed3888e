"""ModernBERT-base trained by replaced-token detection with gradient-disentangled embeddings
(He et al. 2021, DeBERTa-v3), 244,094,657 parameters with its generator.

    bert-jax tokenizer TEXT... --kind bpe --vocab-size 50368 --out TOK
    bert-jax prepare TEXT... --tokenizer TOK --segments full --length 1024 --out CORPUS
    bert-jax pretrain configs/modern_electra_base.py --data.path CORPUS --run.dtype bfloat16

The discriminator is modern_base. As in DeBERTa-v3, the generator has its width and half of its
layers, the losses are weighted 1 to 50, and the word table is the generator's, to which the
discriminator adds differences. 15% of the tokens are masked, all of them by the mask token. Batch
size, steps and optimizer are our choice, after modern_base.

We have not trained this model.
"""

from bert_jax.config import MODERNBERT, Masking, ReplacedTokens, replace

config = replace(
    MODERNBERT,
    encoder=dict(max_length=1024, rotary_theta=10_000.0, attention_output_dropout=0.1),
    objective=ReplacedTokens(
        masking=Masking(mask_prob=1.0, random_prob=0.0),
        generator_size=1.0,
        generator_layers=0.5,
        generator_mlp="proportional",
        tied="gradient_disentangled",
    ),
    data=dict(batch_size=2048),
    run=dict(dir="runs/modern_electra_base", steps=500_000),
)
