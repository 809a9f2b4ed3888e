"""The vocabulary of the whole project: what an experiment is made of, as plain values.

schema     the fields, those of encoder and objectives among them, their defaults
           (BERT-base) and what they admit
stages     batches of one shape after another, as `data.stages` writes them
heads      the head that each family's own code puts on for a task
values     changed by name, as JSON, from the files of configs/
families   BERT, ALBERT, ROBERTA, ELECTRA, SPANBERT, and FINETUNE, FINETUNE_BERT, ...: the bases
           that configs/ differ from

Standard library only.
"""

from bert_jax.config.encoder import Encoder
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
    ROBERTA,
    SPANBERT,
    demo,
)
from bert_jax.config.heads import head_for, supervised
from bert_jax.config.objectives import (
    Glue,
    Imported,
    Kind,
    Masked,
    Masking,
    Objective,
    ReplacedTokens,
    Supervised,
)
from bert_jax.config.schema import Data, Experiment, Guard, Mesh, Optim, Run
from bert_jax.config.serialization import (
    differences,
    from_dict,
    from_file,
    read,
    replace,
    save,
    to_dict,
)
from bert_jax.config.stages import Stage

__all__ = [
    "ALBERT",
    "BERT",
    "ELECTRA",
    "FINETUNE",
    "FINETUNE_ALBERT",
    "FINETUNE_BERT",
    "FINETUNE_ELECTRA",
    "FINETUNE_ROBERTA",
    "FINETUNE_SPANBERT",
    "ROBERTA",
    "SPANBERT",
    "Data",
    "Encoder",
    "Experiment",
    "Glue",
    "Guard",
    "Imported",
    "Kind",
    "Masked",
    "Masking",
    "Mesh",
    "Objective",
    "Optim",
    "ReplacedTokens",
    "Run",
    "Stage",
    "Supervised",
    "demo",
    "differences",
    "from_dict",
    "from_file",
    "head_for",
    "read",
    "replace",
    "save",
    "supervised",
    "to_dict",
]
