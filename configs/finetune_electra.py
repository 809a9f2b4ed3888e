"""Fine-tuning as ELECTRA was (Clark et al. 2020, appendix B; electra/configure_finetuning.py).

    bert-jax finetune configs/finetune_electra.py --init MODEL --task cola --data glue_data/CoLA

Each layer's rate is .8 of that of the one above, with a gap below the head
(`optim.layerwise_lr_decay`). Published: 3e-4 small, 1e-4 base, 5e-5 with .9 large; batch 32,
a tenth of warm-up, 3 epochs, 10 for RTE and STS-B, 2 for SQuAD with 512 tokens
(`--data.length 512`). Pairs of MRPC and STS-B are trained on in both orders, STS-B's
scores are divided by 5. The paper has no weight decay, its code .01, which is taken here.
"""

from bert_jax.config import FINETUNE_ELECTRA

config = FINETUNE_ELECTRA
