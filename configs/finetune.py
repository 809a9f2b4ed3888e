"""Fine-tuning with one recipe for any model: textbook AdamW, a tenth of warm-up, a straight line
down. Heads are those of the model's family.

    bert-jax finetune configs/finetune.py --init MODEL --task classification --data DIR

1e-4 is for models of up to 30 million parameters; larger ones want 2e-5 to 5e-5
(`--optim.peak-lr`), tagging rather twice as much. Small sets want more epochs than large ones:
5 up to six thousand rows, 3 above (`--run.epochs 3`). Several seeds: `--seeds 3`.
"""

from bert_jax.config import FINETUNE

config = FINETUNE
