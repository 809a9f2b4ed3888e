"""BERT's own architecture at the size of demo.py, with learned positions and norms after layers.

    bert-jax prepare TEXT --tokenizer TOK --segments nsp --length 16 --out corpus/16
    bert-jax prepare TEXT --tokenizer TOK --segments nsp --length 64 --out corpus/64
    bert-jax pretrain configs/demo_original.py --data.path corpus/{length}

Half of the steps have rows of 16 tokens, as BERT began with rows of 128; Muon and the trapezoidal
schedule are not BERT's.
"""

from bert_jax.config import BERT, demo_config, replace

config = replace(demo_config(BERT, original=True), run=dict(dir="runs/demo_original"))
