"""Fine-tuning as published for RoBERTa (Liu et al. 2019, section 5.1; fairseq, examples/roberta).

    bert-jax finetune configs/finetune_roberta.py --init MODEL --task rte --data glue_data/RTE

Published: batch size 16 or 32, learning rate 1e-5 to 3e-5, 10 epochs, 6% warmup, weight decay 0.1
of every parameter, Adam with b2 = 0.98, no gradient clipping. fairseq's commands: 1e-5 and batch
size 32 for MNLI, QNLI, QQP and SST-2; 1e-5 and 16 for CoLA and MRPC; 2e-5 and 16 for RTE and STS-B,
whose scores are divided by 5. SQuAD: 1.5e-5, batch size 48, weight decay 0.01, 2 epochs. RACE:
1e-5, batch size 16, 4 epochs.
"""

from bert_jax.config import FINETUNE_ROBERTA

config = FINETUNE_ROBERTA
