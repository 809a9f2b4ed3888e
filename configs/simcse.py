"""A sentence encoder from plain text: SimCSE (Gao et al. 2021, EMNLP), without labels.

    bert-jax prepare TEXT --tokenizer runs/demo/tokenizer --segments single --length 64 --out lines
    bert-jax pretrain configs/simcse.py --init runs/demo --data.path lines

`--objective.task neighbors` trains on spans that follow each other in a document instead, and
`--objective.task crops` on spans that are drawn independently and may overlap.

Batch, learning rate and temperature are those of unsupervised SimCSE from BERT-base (their table
D.1); pooling is the mean over tokens, and there is no dense layer on top. Its 1 million sentences
are 15,625 steps; these are 2,000.
"""

from bert_jax.config import BERT, Contrastive, Data, Guard, Optim, Run, replace

config = replace(
    BERT,
    objective=Contrastive(task="simcse"),
    data=Data(batch_size=64),
    optim=Optim(name="adamw", schedule="roberta", peak_lr=3e-5, warmup_ratio=0.1, eps=1e-8),
    run=Run(dir="runs/simcse", steps=2_000, log_every=20, save_every=500, eval_every=500),
    guard=Guard(spike="off"),
)
