"""Fine-tuning as published for ELECTRA (Clark et al. 2020, appendix B; configure_finetuning.py).

    bert-jax finetune configs/finetune_electra.py --init MODEL --task cola --data glue_data/CoLA

The learning rate of each layer is 0.8 times that of the layer above, with a gap below the head
(`optim.layer_decay`). Published: learning rate 3e-4 for small, 1e-4 for base, 5e-5 with
layer decay 0.9 for large; batch size 32, 10% warmup, 3 epochs (10 for RTE and STS-B, 2 for SQuAD
with 512 tokens, `--data.length 512`). Pairs of MRPC and STS-B are trained in both orders, and
STS-B's scores are divided by 5. The paper has no weight decay; this config uses 0.01, as the
authors' code does.
"""

from bert_jax.config import FINETUNE_ELECTRA

config = FINETUNE_ELECTRA
