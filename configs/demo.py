"""The model of `make demo`: a small BERT that learns in minutes on two CPU cores.

    bert-jax pretrain configs/demo.py --data.path CORPUS

BERT's are the objective (masked tokens 80/10/10 and next sentences) and the embeddings. Rotary
positions, pre-norm, the gated MLP, Muon and the schedule were published later;
`bert_jax.config.demo_config` explains why they are used. demo_original.py is BERT's own
architecture at this size.
"""

from bert_jax.config import BERT, demo_config, replace

config = replace(demo_config(BERT), run=dict(dir="runs/demo"))
