"""Fine-tuning as RoBERTa was (Liu et al. 2019, section 5.1 and appendix; fairseq,
examples/roberta).

    bert-jax finetune configs/finetune_roberta.py --init MODEL --task rte --data glue_data/RTE

Published: batch 16 or 32, 1e-5 to 3e-5, 10 epochs, .06 of warm-up, decay .1 of every parameter,
Adam with .98, nothing clipped. fairseq's commands: 1e-5 and batch 32 for MNLI, QNLI, QQP and
SST-2; 1e-5 and batch 16 for CoLA and MRPC; 2e-5 and batch 16 for RTE and STS-B, whose scores are
divided by 5. SQuAD: 1.5e-5, batch 48, decay .01, 2 epochs. RACE: 1e-5, batch 16, 4 epochs.
"""

from bert_jax.config import FINETUNE_ROBERTA

config = FINETUNE_ROBERTA
