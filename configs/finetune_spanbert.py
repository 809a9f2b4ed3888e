"""Fine-tuning as SpanBERT was (Joshi et al. 2019, appendix B; code/run_squad.py, run_glue.py).

    bert-jax finetune configs/finetune_spanbert.py --init MODEL --task qa --data squad \\
        --data.length 512

Published: the best of 5e-6 to 5e-5 and of batch 16 or 32; 4 epochs for questions with 512
tokens, 10 for GLUE with 128 (4 for CoLA); a tenth of warm-up, Adam without bias correction;
scored on dev ten times an epoch, the best is kept. Its code clips every tensor's gradient to
norm 1, here the whole gradient is.
"""

from bert_jax.config import FINETUNE_SPANBERT

config = FINETUNE_SPANBERT
