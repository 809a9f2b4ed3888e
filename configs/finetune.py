"""Fine-tuning with the same settings for any model: AdamW, 10% warmup, linear decay.

    bert-jax finetune configs/finetune.py --init MODEL --task classification --data DIR

The head is that of the model's family. The learning rate (`--optim.peak-lr`) depends on the model's
size: 1e-4, the default, is for 10 to 30 million parameters, 2e-5 to 5e-5 for larger models, and
1e-3 to 6e-3 for models of a few million. Tagging needs about twice as much. Small datasets need
more epochs: 5 for up to 6,000 rows, 3 for more (`--run.epochs 3`). For several seeds use
`--seeds 3`.
"""

from bert_jax.config import FINETUNE

config = FINETUNE
