"""The Hugging Face families: their classes, and one table of names each (hf_name_rules.py).

Sources: the modules of transformers 5 (`modeling_bert.py` and similar files).
"""

from __future__ import annotations

import dataclasses

from bert_jax.config import TaskType
from bert_jax.convert.hf_name_rules import Family, NameTable, TaskClass

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
DISTILBERT_LAYER: NameTable = {
    "attention.q_lin": "attention/query",
    "attention.k_lin": "attention/key",
    "attention.v_lin": "attention/value",
    "attention.out_lin": "attention/out",
    "sa_layer_norm": "attention/norm",
    "ffn.lin1": "mlp/up",
    "ffn.lin2": "mlp/down",
    "output_layer_norm": "mlp/norm",
}


def _layers(prefix: str, table: NameTable) -> NameTable:
    def native(names: str) -> str:
        return " ".join(f"encoder/layers/{name}" for name in names.split())

    return {f"{prefix}.{hf}": native(names) for hf, names in table.items()}


def _tasks(
    model: str,
    label: NameTable,
    choice: NameTable | None = None,
    tag: NameTable | None = None,
    span: NameTable | None = None,
) -> dict[TaskType, TaskClass]:
    """The four classes of a family and the names of their heads."""
    tag, span = tag or {"classifier": "tag/dense"}, span or {"qa_outputs": "span/dense"}
    return {
        "classification": TaskClass(f"{model}ForSequenceClassification", label),
        "choice": TaskClass(f"{model}ForMultipleChoice", choice or label),
        "tagging": TaskClass(f"{model}ForTokenClassification", tag),
        "qa": TaskClass(f"{model}ForQuestionAnswering", span),
    }


LABEL: NameTable = {"classifier": "label/dense"}


BERT = Family(
    name="bert",
    prefix="bert.",
    classes={
        "BertForPreTraining": ("mlm", "pooler", "pair"),
        "BertForMaskedLM": ("mlm",),
        "BertForNextSentencePrediction": ("pooler", "pair"),
        "BertModel": (),
    },
    projection="",
    embeddings=EMBEDDINGS,
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
    prefix="albert.",
    classes={
        "AlbertForPreTraining": ("mlm", "pooler", "pair"),
        "AlbertForMaskedLM": ("mlm",),
        "AlbertModel": (),
    },
    projection="encoder.embedding_hidden_mapping_in",
    embeddings=EMBEDDINGS,
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
    prefix="roberta.",
    classes={"RobertaForMaskedLM": ("mlm",), "RobertaModel": ()},
    projection="",
    embeddings=EMBEDDINGS,
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
    old_tied={"lm_head.weight": "roberta.embeddings.word_embeddings.weight"},
    tasks=_tasks(
        "Roberta",
        {"classifier.dense": "pooler/dense", "classifier.out_proj": "label/dense"},
        {"roberta.pooler.dense": "pooler/dense"} | LABEL,
    ),
    activation_fixed=("mlm",),
)


def _like_roberta(name: str, model: str) -> Family:
    """The family `name`, with RoBERTa's network and tensors and classes of its own."""
    tasks = {
        task: TaskClass(c.name.replace("Roberta", model), c.table)
        for task, c in ROBERTA.tasks.items()
    }
    classes = {f"{model}ForMaskedLM": ("mlm",), f"{model}Model": ()}
    changes = dict(name=name, classes=classes, tasks=tasks)
    return dataclasses.replace(ROBERTA, **changes)  # type: ignore[arg-type]


XLM_ROBERTA = _like_roberta("xlm-roberta", "XLMRoberta")
CAMEMBERT = _like_roberta("camembert", "Camembert")

DISTILBERT = Family(
    name="distilbert",
    prefix="distilbert.",
    classes={"DistilBertForMaskedLM": ("mlm",), "DistilBertModel": ()},
    projection="",
    embeddings={hf: native for hf, native in EMBEDDINGS.items() if native != "embeddings/type"},
    layers=_layers("transformer.layer.{i}", DISTILBERT_LAYER),
    heads={
        "mlm": {
            "vocab_transform": "mlm/dense",
            "vocab_layer_norm": "mlm/norm",
            "vocab_projector.bias": "mlm/bias",
        },
    },
    tied={"vocab_projector.weight": "distilbert.embeddings.word_embeddings.weight"},
    tasks=_tasks("DistilBert", {"pre_classifier": "label/first"} | LABEL),
)

ELECTRA = Family(
    name="electra",
    prefix="electra.",
    classes={
        "ElectraForPreTraining": ("rtd",),
        "ElectraForMaskedLM": ("mlm",),
        "ElectraModel": (),
    },
    projection="embeddings_project",
    embeddings=EMBEDDINGS,
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

MODERNBERT_LAYER: NameTable = {
    "attn_norm": "attention/norm",
    "attn.Wqkv": "attention/query attention/key attention/value",
    "attn.Wo": "attention/out",
    "mlp_norm": "mlp/norm",
    "mlp.Wi": "mlp/gate mlp/up",
    "mlp.Wo": "mlp/down",
}
_PREDICTION: NameTable = {"head.dense": "prediction/dense", "head.norm": "prediction/norm"}

MODERNBERT = Family(
    name="modernbert",
    prefix="model.",
    classes={"ModernBertForMaskedLM": ("mlm",), "ModernBertModel": ()},
    projection="",
    embeddings={
        "embeddings.tok_embeddings.weight": "embeddings/word",
        "embeddings.norm": "embeddings/norm",
    },
    layers=_layers("layers.{i}", MODERNBERT_LAYER) | {"final_norm": "encoder/norm"},
    heads={
        "mlm": {
            "head.dense": "mlm/dense",
            "head.norm": "mlm/norm",
            "decoder.bias": "mlm/bias",
        },
    },
    tied={"decoder.weight": "model.embeddings.tok_embeddings.weight"},
    tasks=_tasks(
        "ModernBert",
        _PREDICTION | LABEL,
        tag=_PREDICTION | {"classifier": "tag/dense"},
        span=_PREDICTION | {"classifier": "span/dense"},
    ),
)

FAMILIES = {
    f.name: f
    for f in (BERT, ALBERT, ROBERTA, ELECTRA, XLM_ROBERTA, CAMEMBERT, DISTILBERT, MODERNBERT)
}
