"""BERT-base uncased, 110,106,428 parameters with both heads (Devlin et al. 2018).

    bert-jax prepare TEXT... --tokenizer TOK --segments nsp --length 128 --out CORPUS
    bert-jax pretrain configs/bert_base.py --data.path CORPUS

Published: batch size 256, 1,000,000 steps of which 10,000 are warmup, Adam with learning rate
1e-4, dropout 0.1. Rows have 128 tokens in 90% of the steps and 512 in the others. Training took 4
days on 4 Cloud TPUs. All numbers except the learning rate are from memory of the paper.
Masking is dynamic here; the original's static masking is
`--objective.masking.num_static_masks 10`.

The commands above train rows of 128 tokens alone, and so positions 0 to 127 of 512. With corpora of
both lengths give `--data.stages 128=0.9,512=0.1 --data.path CORPORA/{length}`.
"""

from bert_jax.config import BERT

config = BERT
