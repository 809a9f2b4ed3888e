"""Fine-tuning as published for BERT (Devlin et al. 2019, section 4 and appendix A.3).

    bert-jax finetune configs/finetune_bert.py --init MODEL --task mrpc --data glue_data/MRPC

Published: the best on dev of batch size 16 or 32, learning rate 2e-5 to 5e-5 and 2 to 4 epochs; 10%
warmup, Adam without bias correction. SQuAD: 384 tokens, windows with stride 128; version 1.1 with
batch size 32, 5e-5 and 3 epochs, version 2.0 with batch size 48, 5e-5 and 2 epochs. Its code and
ELECTRA's score the last checkpoint on dev (`--select last`); by default the best one is scored.
"""

from bert_jax.config import FINETUNE_BERT

config = FINETUNE_BERT
