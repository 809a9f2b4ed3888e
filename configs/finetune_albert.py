"""Fine-tuning as published for ALBERT (Lan et al. 2020, appendix A.4; albert/run_glue.sh).

    bert-jax finetune configs/finetune_albert.py --init MODEL --task sst2 --data glue_data/SST-2

The encoder keeps its pre-training dropout; the classifier has dropout 0.1. Published with 512
tokens (`--data.length 512`) and, by task, learning rate, batch size, steps and warmup steps:

    cola  1e-5   16   5336   320      mnli  3e-5  128  10000  1000      stsb  2e-5  16   3598  214
    sst2  1e-5   32  20935  1256      qqp   5e-5  128  14000  1000      mrpc  2e-5  32    800  200
    qnli  1e-5   32  33112  1986      rte   3e-5   32    800   200      RACE  2e-5  32  12000 1000

RACE has 1e-5 for the second version of the models. SQuAD: batch size 48; version 1.1 with 5e-5 for
3,649 steps (365 of warmup) with 384 tokens; version 2.0 with 3e-5 for 8,144 steps (814 of warmup)
with 512 tokens, an end that depends on the start, and a classifier of answerable questions. RTE,
STS-B and MRPC started from the model fine-tuned on MNLI; `--init` accepts such a run.
"""

from bert_jax.config import FINETUNE_ALBERT

config = FINETUNE_ALBERT
