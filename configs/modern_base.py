"""ModernBERT-base, 149,655,232 parameters with its head (Warner et al. 2024), first phase.

    bert-jax tokenizer TEXT... --kind bpe --vocab-size 50368 --out TOK
    bert-jax prepare TEXT... --tokenizer TOK --segments full --length 1024 --out CORPUS
    bert-jax pretrain configs/modern_base.py --data.path CORPUS --run.dtype bfloat16

22 narrow layers with pre-norm but for the first attention, rotary positions, GeGLU, no biases;
every third layer attends to the whole row, the others to 64 tokens on either side. Published
recipe (section 2.2, appendix A): 1.72 trillion tokens in rows of 1,024, 30% of them masked,
StableAdamW with b1 = 0.9, b2 = 0.98, eps = 1e-6 and weight decay 1e-5 (a step's share of the
parameters at the peak rate: ours is multiplied by the rate and theirs is not, so that here it is
1e-5 / 8e-4), dropout 0.1 after attention alone, a constant learning rate of 8e-4 after a warmup of
3 billion tokens, and batches that grow from 768 to 4,608 rows in 50 billion tokens; here they grow
in five steps. Both rotary bases are 10,000. modern_base_8k and modern_base_decay are the other
phases.

We have not trained this model.
"""

from bert_jax.config import MODERNBERT, replace

config = replace(
    MODERNBERT,
    encoder=dict(max_length=1024, rotary_theta=10_000.0, attention_output_dropout=0.1),
    data=dict(
        stages="1024x1152=0.0225,1024x1920=0.0135,1024x2688=0.0097,1024x3456=0.0075,"
        "1024x4224=0.0061,1024x4608=0.9407"
    ),
)
