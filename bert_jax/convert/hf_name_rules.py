"""Hugging Face names and native names: one table per family, used in both directions.

A table maps the names of modules, hf to native. The names decide what an entry means:

    hf.weight  hf.bias   <->   native/kernel (transposed)  native/bias       a dense layer
    hf.weight  hf.bias   <->   native/scale  native/bias         native ends in `norm`
    hf                   <->   native                            hf ends in `weight` or `bias`

PyTorch keeps a dense layer's weight as (out, in), we keep it as (in, out). `{i}` counts the sets
of layer parameters: separate tensors in Hugging Face, stacked on axis 0 here.
Sources: the modules of transformers 5 (`modeling_bert.py` and similar files).
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


def _layers(prefix: str, table: NameTable) -> NameTable:
    return {f"{prefix}.{hf}": f"encoder/layers/{native}" for hf, native in table.items()}


class TaskClass(NamedTuple):
    """A Hugging Face class for fine-tuning, and the names of its head."""

    name: str
    table: NameTable


@dataclass(frozen=True)
class Family:
    """A Hugging Face model type: its classes, and the names of its encoder and heads."""

    name: str
    classes: dict[str, tuple[str, ...]]  # class -> its heads, most heads first
    projection: str  # name of the embedding projection; "": there is none
    layers: NameTable
    heads: dict[str, NameTable]
    tied: NameTable  # second name of a tied tensor -> first name
    tasks: dict[TaskType, TaskClass]  # regression uses the class of classification
    activation_fixed: tuple[str, ...] = ()  # heads that use the erf GELU whatever the config says

    @property
    def prefix(self) -> str:
        """Prefix of the encoder's tensors in every class except the bare model."""
        return f"{self.name}."

    def encoder_table(self, projected: bool) -> NameTable:
        """The names of the encoder, with those of the embedding projection if it is `projected`."""
        table = EMBEDDINGS | ({self.projection: "encoder/projection"} if projected else {})
        return {f"{self.prefix}{hf}": native for hf, native in (table | self.layers).items()}

    def fullest_class(self, heads: Collection[str]) -> tuple[str, tuple[str, ...]]:
        """The class with the most of these heads and no others, and its heads. In the bare model
        a pooler is optional."""
        name, class_heads = next(c for c in self.classes.items() if set(c[1]) <= set(heads))
        return name, class_heads or tuple(h for h in ("pooler",) if h in heads)

    def head_table(self, heads: Collection[str]) -> NameTable:
        """The names of these pre-training heads, in the family's order."""
        tables = (table for head, table in self.heads.items() if head in heads)
        return {hf: native for table in tables for hf, native in table.items()}


def _tasks(
    model: str, label: NameTable, choice: NameTable | None = None
) -> dict[TaskType, TaskClass]:
    """The four classes of a family; only the heads for classification and choice differ."""
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
    """A native parameter, and its Hugging Face tensor or, with `{i}`, tensors."""

    hf: str
    native: str
    transpose: bool

    @property
    def stacked(self) -> bool:
        """Whether the native parameter stacks the tensors of all groups."""
        return "{i}" in self.hf

    def hf_names(self, num_groups: int) -> list[str]:
        """The names of its tensors in a model of `num_groups` groups."""
        return [self.hf.format(i=i) for i in range(num_groups)] if self.stacked else [self.hf]


def param_rules(family: Family, heads: NameTable, projected: bool) -> Iterator[ParamRule]:
    """The rules of the encoder and of a table of heads, one per parameter."""
    for hf, native in (family.encoder_table(projected) | heads).items():
        if hf.endswith((".weight", ".bias")):
            yield ParamRule(hf, native, False)
            continue
        norm = native.endswith("norm")
        yield ParamRule(f"{hf}.weight", f"{native}/{'scale' if norm else 'kernel'}", not norm)
        yield ParamRule(f"{hf}.bias", f"{native}/bias", False)
