"""The vocabulary of the whole project: what an experiment is made of, as plain values.

schema     the fields, their defaults (BERT-base) and what they admit
values     changed by name, as JSON, from the files of configs/
families   BERT, ALBERT, ROBERTA, ELECTRA, SPANBERT: the bases that configs/ differ from

Standard library only.
"""

from bert_jax.config.families import ALBERT, BERT, ELECTRA, ROBERTA, SPANBERT, demo
from bert_jax.config.schema import (
    Data,
    Encoder,
    Experiment,
    Glue,
    Imported,
    Kind,
    Masked,
    Masking,
    Mesh,
    Objective,
    Optim,
    ReplacedTokens,
    Run,
    Supervised,
)
from bert_jax.config.values import (
    differences,
    from_dict,
    from_file,
    read,
    replace,
    save,
    to_dict,
)

__all__ = [
    "ALBERT",
    "BERT",
    "ELECTRA",
    "ROBERTA",
    "SPANBERT",
    "Data",
    "Encoder",
    "Experiment",
    "Glue",
    "Imported",
    "Kind",
    "Masked",
    "Masking",
    "Mesh",
    "Objective",
    "Optim",
    "ReplacedTokens",
    "Run",
    "Supervised",
    "demo",
    "differences",
    "from_dict",
    "from_file",
    "read",
    "replace",
    "save",
    "to_dict",
]
