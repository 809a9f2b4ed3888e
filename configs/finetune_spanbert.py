"""Fine-tuning as published for SpanBERT (Joshi et al. 2019, appendix B; run_squad.py, run_glue.py).

    bert-jax finetune configs/finetune_spanbert.py --init MODEL --task qa --data squad \\
        --data.length 512

Published: the best of learning rates 5e-6 to 5e-5 and batch size 16 or 32; 4 epochs with 512 tokens
for questions, 10 epochs with 128 tokens for GLUE (4 for CoLA); 10% warmup, Adam without bias
correction; 10 evaluations per epoch on dev, the best checkpoint is kept. The authors' code clips
the gradient of each tensor to norm 1; this config clips the global norm.
"""

from bert_jax.config import FINETUNE_SPANBERT

config = FINETUNE_SPANBERT
