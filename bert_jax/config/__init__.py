"""Configs: the plain values that define an experiment, as frozen dataclasses.

schema         Experiment and the sections `data` and `mesh`; defaults are BERT-base
optim          the section `optim`: optimizer and learning rate
run            the section `run`: folder, length and computation
encoder        the section `encoder`
objectives     the section `objective`: Masked, ReplacedTokens, Imported
supervised     the section `objective` of fine-tuning
contrastive    the same for sentence encoders
distill        the section `distill`: a teacher
guard          the section `guard`: what a run does about non-finite numbers, loss spikes and hangs
lora           the section `lora`: low-rank adapters
stages         batch shapes that change during a run (`data.stages`)
freeze         which parts `optim.freeze` names
step_counts    numbers of steps that a ratio may stand for
families       BERT, ALBERT, ROBERTA, ELECTRA, SPANBERT, MODERNBERT, and FINETUNE, FINETUNE_BERT,
               ..., which the files in configs/ start from; the task head of each family
model_types    the families as Hugging Face names them
ranges         range checks of fields, with uniform messages
serialization  change by name, save and read as JSON, load from a Python file

Standard library only.
"""

from bert_jax.config.contrastive import Contrastive
from bert_jax.config.distill import Distill
from bert_jax.config.encoder import DROPOUT_RATES, Encoder
from bert_jax.config.families import (
    ALBERT,
    BERT,
    ELECTRA,
    FINETUNE,
    FINETUNE_ALBERT,
    FINETUNE_BERT,
    FINETUNE_ELECTRA,
    FINETUNE_ROBERTA,
    FINETUNE_SPANBERT,
    MODERNBERT,
    ROBERTA,
    SPANBERT,
    demo_config,
    head_fields,
    supervised_objective,
)
from bert_jax.config.guard import Guard
from bert_jax.config.lora import Lora
from bert_jax.config.model_types import ROBERTA_LIKE, ModelType
from bert_jax.config.objectives import (
    Imported,
    Masked,
    Masking,
    Objective,
    ReplacedTokens,
)
from bert_jax.config.optim import Optim
from bert_jax.config.run import TRACKERS, Run
from bert_jax.config.schema import Data, Experiment, Mesh
from bert_jax.config.serialization import (
    checked,
    differences,
    from_dict,
    from_python_file,
    read_config,
    replace,
    save_config,
    to_dict,
)
from bert_jax.config.stages import Stage, moved_stage
from bert_jax.config.supervised import GlueTask, Supervised, TaskType

__all__ = [
    "ALBERT",
    "BERT",
    "DROPOUT_RATES",
    "ELECTRA",
    "FINETUNE",
    "FINETUNE_ALBERT",
    "FINETUNE_BERT",
    "FINETUNE_ELECTRA",
    "FINETUNE_ROBERTA",
    "FINETUNE_SPANBERT",
    "MODERNBERT",
    "ROBERTA",
    "ROBERTA_LIKE",
    "SPANBERT",
    "TRACKERS",
    "Contrastive",
    "Data",
    "Distill",
    "Encoder",
    "Experiment",
    "GlueTask",
    "Guard",
    "Imported",
    "Lora",
    "Masked",
    "Masking",
    "Mesh",
    "ModelType",
    "Objective",
    "Optim",
    "ReplacedTokens",
    "Run",
    "Stage",
    "Supervised",
    "TaskType",
    "checked",
    "demo_config",
    "differences",
    "from_dict",
    "from_python_file",
    "head_fields",
    "moved_stage",
    "read_config",
    "replace",
    "save_config",
    "supervised_objective",
    "to_dict",
]
