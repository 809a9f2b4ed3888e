"""Fine-tuning as BERT was (Devlin et al. 2019, section 4 and appendix A.3).

    bert-jax finetune configs/finetune_bert.py --init MODEL --task mrpc --data glue_data/MRPC

Published: batch 16 or 32, 2e-5 to 5e-5, 2 to 4 epochs, whatever is best on dev; a tenth of
warm-up, Adam without bias correction. SQuAD: 384 tokens, windows 128 apart; 1.1 with batch 32,
5e-5 and 3 epochs, 2.0 with batch 48, 5e-5 and 2 epochs.
"""

from bert_jax.config import FINETUNE_BERT

config = FINETUNE_BERT
