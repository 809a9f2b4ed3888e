"""SpanBERT-base cased, 110,300,480 parameters with both heads (Joshi et al. 2019).

    bert-jax tokenizer TEXT... --kind wordpiece --cased --vocab-size 28996 --out TOK
    bert-jax prepare TEXT... --tokenizer TOK --segments single --length 512 --out CORPUS
    bert-jax pretrain configs/spanbert_base.py --data.path CORPUS

Batch 2,048, 5e-4 and 300,000 steps are the authors' (SpanBERT, issue 6); 10,000 steps of
warm-up are the large model's, since the base model's are not published. Weight decay is the
paper's .1; their README's command has .01.
"""

from bert_jax.config import SPANBERT

config = SPANBERT
