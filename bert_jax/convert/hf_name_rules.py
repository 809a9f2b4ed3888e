"""How Hugging Face names what we have: one table per family, read in both directions.

A table goes module by module, theirs to ours. What a line stands for follows from its names:

    theirs.weight  theirs.bias   <->   ours/kernel (transposed)  ours/bias     a dense layer
    theirs.weight  theirs.bias   <->   ours/scale  ours/bias                   ours ends in `norm`
    theirs                       <->   ours                 theirs ends in `weight` or `bias`

PyTorch keeps a dense layer's weight as (out, in), we as (in, out). `{i}` counts the sets of
layer parameters: theirs are tensors of their own, ours lie stacked on axis 0.
Sources: the modules of transformers 5 (`modeling_bert.py` and its sisters).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from bert_jax.config import TaskType

NameTable = dict[str, str]

EMBEDDINGS: NameTable = {
    "embeddings.word_embeddings.weight": "embeddings/word",
    "embeddings.position_embeddings.weight": "embeddings/position",
    "embeddings.token_type_embeddings.weight": "embeddings/type",
    "embeddings.LayerNorm": "embeddings/norm",
}
LAYER: NameTable = {
    "attention.self.query": "attention/query",
    "attention.self.key": "attention/key",
    "attention.self.value": "attention/value",
    "attention.output.dense": "attention/out",
    "attention.output.LayerNorm": "attention/norm",
    "intermediate.dense": "mlp/up",
    "output.dense": "mlp/down",
    "output.LayerNorm": "mlp/norm",
}
ALBERT_LAYER: NameTable = {
    "attention.query": "attention/query",
    "attention.key": "attention/key",
    "attention.value": "attention/value",
    "attention.dense": "attention/out",
    "attention.LayerNorm": "attention/norm",
    "ffn": "mlp/up",
    "ffn_output": "mlp/down",
    "full_layer_layer_norm": "mlp/norm",
}


def _layers(at: str, table: NameTable) -> NameTable:
    return {f"{at}.{theirs}": f"encoder/layers/{ours}" for theirs, ours in table.items()}


class TaskClass(NamedTuple):
    """A class of theirs for fine-tuning, and what it has beside the body."""

    name: str
    table: NameTable


@dataclass(frozen=True)
class Family:
    """A model type of theirs: where its body and each of our heads are kept."""

    name: str
    classes: dict[str, tuple[str, ...]]  # their class -> heads that it holds, fullest first
    projection: str  # of the embeddings to the hidden size; "": it has none
    layers: NameTable
    heads: dict[str, NameTable]
    tied: NameTable  # their second name of a tensor -> the first
    tasks: dict[TaskType, TaskClass]  # kind of task (regression: classification) -> its class
    activation_fixed: tuple[str, ...] = ()  # heads that use the erf GELU whatever the config says

    @property
    def prefix(self) -> str:
        """Of the body's tensors in every class but the bare model."""
        return f"{self.name}."

    def encoder_table(self, projected: bool) -> NameTable:
        table = EMBEDDINGS | ({self.projection: "encoder/projection"} if projected else {})
        return {f"{self.prefix}{theirs}": ours for theirs, ours in (table | self.layers).items()}

    def fullest_class(self, heads: Collection[str]) -> tuple[str, tuple[str, ...]]:
        """The class that holds most of these heads and no other, and those that it holds. Only
        the bare model may have a pooler or not."""
        name, held = next(c for c in self.classes.items() if set(c[1]) <= set(heads))
        return name, held or tuple(h for h in ("pooler",) if h in heads)

    def head_table(self, heads: Collection[str]) -> NameTable:
        """Of these heads of pre-training, in the family's order."""
        tables = (table for head, table in self.heads.items() if head in heads)
        return {theirs: ours for table in tables for theirs, ours in table.items()}


def _tasks(
    model: str, label: NameTable, choice: NameTable | None = None
) -> dict[TaskType, TaskClass]:
    """All four classes of a model; only their heads over whole texts differ by family."""
    return {
        "classification": TaskClass(f"{model}ForSequenceClassification", label),
        "choice": TaskClass(f"{model}ForMultipleChoice", choice or label),
        "tagging": TaskClass(f"{model}ForTokenClassification", {"classifier": "tag/dense"}),
        "qa": TaskClass(f"{model}ForQuestionAnswering", {"qa_outputs": "span/dense"}),
    }


LABEL: NameTable = {"classifier": "label/dense"}


BERT = Family(
    name="bert",
    classes={
        "BertForPreTraining": ("mlm", "pooler", "pair"),
        "BertForMaskedLM": ("mlm",),
        "BertForNextSentencePrediction": ("pooler", "pair"),
        "BertModel": (),
    },
    projection="",
    layers=_layers("encoder.layer.{i}", LAYER),
    heads={
        "mlm": {
            "cls.predictions.transform.dense": "mlm/dense",
            "cls.predictions.transform.LayerNorm": "mlm/norm",
            "cls.predictions.bias": "mlm/bias",
        },
        "pooler": {"bert.pooler.dense": "pooler/dense"},
        "pair": {"cls.seq_relationship": "pair/dense"},
    },
    tied={
        "cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight",
        "cls.predictions.decoder.bias": "cls.predictions.bias",
    },
    tasks=_tasks("Bert", {"bert.pooler.dense": "pooler/dense"} | LABEL),
)

ALBERT = Family(
    name="albert",
    classes={
        "AlbertForPreTraining": ("mlm", "pooler", "pair"),
        "AlbertForMaskedLM": ("mlm",),
        "AlbertModel": (),
    },
    projection="encoder.embedding_hidden_mapping_in",
    layers=_layers("encoder.albert_layer_groups.{i}.albert_layers.0", ALBERT_LAYER),
    heads={
        "mlm": {
            "predictions.dense": "mlm/dense",
            "predictions.LayerNorm": "mlm/norm",
            "predictions.bias": "mlm/bias",
        },
        "pooler": {"albert.pooler": "pooler/dense"},
        "pair": {"sop_classifier.classifier": "pair/dense"},
    },
    tied={
        "predictions.decoder.weight": "albert.embeddings.word_embeddings.weight",
        "predictions.decoder.bias": "predictions.bias",
    },
    tasks=_tasks("Albert", {"albert.pooler": "pooler/dense"} | LABEL),
)

ROBERTA = Family(
    name="roberta",
    classes={"RobertaForMaskedLM": ("mlm",), "RobertaModel": ()},
    projection="",
    layers=_layers("encoder.layer.{i}", LAYER),
    heads={
        "mlm": {
            "lm_head.dense": "mlm/dense",
            "lm_head.layer_norm": "mlm/norm",
            "lm_head.bias": "mlm/bias",
        },
        "pooler": {"roberta.pooler.dense": "pooler/dense"},
    },
    tied={
        "lm_head.decoder.weight": "roberta.embeddings.word_embeddings.weight",
        "lm_head.decoder.bias": "lm_head.bias",
    },
    tasks=_tasks(
        "Roberta",
        {"classifier.dense": "pooler/dense", "classifier.out_proj": "label/dense"},
        {"roberta.pooler.dense": "pooler/dense"} | LABEL,
    ),
    activation_fixed=("mlm",),
)

ELECTRA = Family(
    name="electra",
    classes={
        "ElectraForPreTraining": ("rtd",),
        "ElectraForMaskedLM": ("mlm",),
        "ElectraModel": (),
    },
    projection="embeddings_project",
    layers=_layers("encoder.layer.{i}", LAYER),
    heads={
        "mlm": {
            "generator_predictions.dense": "mlm/dense",
            "generator_predictions.LayerNorm": "mlm/norm",
            "generator_lm_head.bias": "mlm/bias",
        },
        "rtd": {
            "discriminator_predictions.dense": "rtd/dense",
            "discriminator_predictions.dense_prediction": "rtd/out",
        },
    },
    tied={"generator_lm_head.weight": "electra.embeddings.word_embeddings.weight"},
    tasks=_tasks(
        "Electra",
        {"classifier.dense": "label/first", "classifier.out_proj": "label/dense"},
        {"sequence_summary.summary": "label/first"} | LABEL,
    ),
    activation_fixed=("mlm",),
)

FAMILIES = {f.name: f for f in (BERT, ALBERT, ROBERTA, ELECTRA)}


class ParamRule(NamedTuple):
    """One of our leaves, and their tensor or, with `{i}`, tensors."""

    hf: str
    native: str
    transpose: bool

    @property
    def stacked(self) -> bool:
        return "{i}" in self.hf

    def hf_names(self, sets: int) -> list[str]:
        return [self.hf.format(i=i) for i in range(sets)] if self.stacked else [self.hf]


def param_rules(family: Family, heads: NameTable, projected: bool) -> Iterator[ParamRule]:
    """Leaf by leaf, the body and the heads of a table."""
    for theirs, ours in (family.encoder_table(projected) | heads).items():
        if theirs.endswith((".weight", ".bias")):
            yield ParamRule(theirs, ours, False)
            continue
        norm = ours.endswith("norm")
        yield ParamRule(f"{theirs}.weight", f"{ours}/{'scale' if norm else 'kernel'}", not norm)
        yield ParamRule(f"{theirs}.bias", f"{ours}/bias", False)
