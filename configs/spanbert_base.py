"""SpanBERT-base cased, 110,300,480 parameters with both heads (Joshi et al. 2019).

    bert-jax tokenizer TEXT... --kind wordpiece --cased --vocab-size 28996 --out TOK
    bert-jax prepare TEXT... --tokenizer TOK --segments single --length 512 --out CORPUS
    bert-jax pretrain configs/spanbert_base.py --data.path CORPUS

The authors gave batch size 2,048, learning rate 5e-4 and 300,000 steps (SpanBERT, issue 6). The
10,000 warmup steps are those of the large model, because those of the base model are not published.
The weight decay of 0.1 is from the paper; the command in the authors' README has 0.01.
"""

from bert_jax.config import SPANBERT

config = SPANBERT
