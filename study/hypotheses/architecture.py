"""(a) shared layers, (i) five families, (j) features by layer, (k) what came after."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from study.hypotheses.objectives import MLM, RTD
from study.hypothesis import Hypothesis, ResultRow, Statement
from study.variants import Variant

BERT = Variant("bert", "bert", equal="flops")
FACTORISED = Variant("bert_factorised", "bert", size="factorised")
SHARED = Variant("bert_shared", "bert", dict(encoder=dict(groups=1)))
SHARED_ATTENTION = Variant(
    "bert_shared_attention", "bert", dict(encoder=dict(groups=1, share_params="attention"))
)
SHARED_MLP = Variant("bert_shared_mlp", "bert", dict(encoder=dict(groups=1, share_params="mlp")))
BOTH = Variant("bert_shared_factorised", "bert", dict(encoder=dict(groups=1)), size="factorised")

SHARING = Hypothesis(
    letter="a",
    title="Shared layers and factorised embeddings",
    says="One set of parameters for all layers and narrow embeddings keep most of the quality "
    "with a fraction of the parameters, and save no time.",
    against="The shared, factorised model loses more than 3 points of the mean over tasks.",
    rows=(
        ResultRow(BERT, "neither (BERT)", ("108M", "82.3")),
        ResultRow(FACTORISED, "embeddings factorised", ("89M", "81.6")),
        ResultRow(SHARED_ATTENTION, "attention shared", ("83M", "81.6")),
        ResultRow(SHARED_MLP, "MLP shared", ("57M", "79.5")),
        ResultRow(SHARED, "all of a layer shared", ("31M", "79.8")),
        ResultRow(BOTH, "both (ALBERT's encoder)", ("12M", "80.1")),
    ),
    measures=("tasks", "mlm", "parameters", "speed"),
    statements=(
        Statement(
            "both together cost at most 3 points", "bert_shared_factorised", "bert", "tasks", -3.0
        ),
        Statement(
            "factorised embeddings cost at most 1 point",
            "bert_factorised",
            "bert",
            "tasks",
            -1,
            main=False,
        ),
        Statement(
            "sharing the MLP costs more than sharing attention",
            "bert_shared_attention",
            "bert_shared_mlp",
            "tasks",
            main=False,
        ),
    ),
    columns=("parameters", "mean of 5 tasks"),
    source="Lan et al. 2020, tables 3 and 4 (ALBERT-base; parameters and the rows of 768-wide "
    "embeddings from memory)",
    drawn=("tasks", "parameters"),
)


ALBERT = Variant("albert", "albert", size="factorised", equal="flops")
ROBERTA = Variant("roberta", "roberta", equal="flops")
SPANBERT = Variant("spanbert", "spanbert", equal="flops")
ALBERT_WIDE = Variant("albert_wide", "albert", size="wide")
ELECTRA_ROWS = Variant("electra_rows", "electra")

FAMILIES_COMPARED = Hypothesis(
    letter="i",
    title="The five families, at equal FLOPs and at equal parameters",
    says="At equal compute replaced tokens teach more than masked ones; at equal parameters a "
    "wide model that shares its layers does more than BERT, for several times the compute.",
    against="ELECTRA is below BERT at equal FLOPs, or the wide ALBERT at equal parameters.",
    rows=(
        ResultRow(BERT, "BERT", ("110M", "82.2", "84.4")),
        ResultRow(RTD, "ELECTRA, equal FLOPs", ("110M", "85.1", "88.8")),
        ResultRow(ALBERT, "ALBERT, equal FLOPs", ("12M", "", "81.6")),
        ResultRow(ROBERTA, "RoBERTa", ("125M", "86.4", "87.6")),
        ResultRow(SPANBERT, "SpanBERT", ("110M", "", "")),
        ResultRow(ELECTRA_ROWS, "ELECTRA, equal parameters and tokens"),
        ResultRow(ALBERT_WIDE, "ALBERT, equal parameters and tokens"),
    ),
    measures=("tasks", "parameters", "flops", "tokens", "speed"),
    statements=(
        Statement("ELECTRA beats BERT at equal FLOPs", "rtd", "bert", "tasks"),
        Statement(
            "ELECTRA beats BERT at equal parameters", "electra_rows", "bert", "tasks", main=False
        ),
        Statement("a wide ALBERT beats BERT at equal parameters", "albert_wide", "bert", "tasks"),
        Statement("ALBERT is below BERT at equal FLOPs", "bert", "albert", "tasks", main=False),
    ),
    columns=("parameters", "GLUE, dev", "MNLI, dev"),
    source="base models as published. GLUE of BERT and ELECTRA at equal FLOPs: Clark et al. 2020, "
    "table 1. The rest were not trained alike: Devlin et al. 2019 (from memory), the released "
    "ELECTRA-Base, the README of ALBERT-base v1, Liu et al. 2019, appendix (the mean is ours)",
    note="Each family has its own tokenizer, rows, masks and objective; optimiser, batch and rate "
    "are one for all. The parameters of an ELECTRA are its discriminator's. FLOPs and tokens are "
    "those of the text: rows of whole sentences (RoBERTa, SpanBERT) have more padding, so there "
    "are more of them.",
    many=True,
    drawn=("tasks", "eval_mlm_loss"),
)

LAYERS = Hypothesis(
    letter="j",
    title="Features by layer",
    says="A linear model on frozen features names entities best from the middle layers, and "
    "tells texts apart best from the last ones.",
    against="From BERT, tagging is better on the last layer than on the middle one, or "
    "classification on the middle one than on the last.",
    rows=(ResultRow(BERT, "BERT"), ResultRow(RTD, "ELECTRA")),
    measures=("tagging_middle", "tagging_last", "texts_middle", "texts_last"),
    statements=(
        Statement(
            "tagging: the middle layer is above the last (BERT)",
            "bert",
            "bert",
            "tagging_middle>tagging_last",
        ),
        Statement(
            "classification: the last layer is above the middle one (BERT)",
            "bert",
            "bert",
            "texts_last>texts_middle",
        ),
    ),
    source="",
    note="Middle: the layer half way up, the second of four, whatever the scores: the best of "
    "several would be picked on the rows that are scored. The papers give no table of linear "
    "models by layer; the claim is that of Liu et al. 2019 and Tenney et al. 2019 on features.",
    many=True,
    layers=("tagging", "texts"),
)

PRE_NORM = dict(pre_norm=True)
ROTARY = dict(positions="rotary")
GATED = dict(gated_mlp=True)


def _with(name: str, *parts: Mapping[str, Any]) -> Variant:
    encoder = {k: v for part in parts for k, v in part.items()}
    return Variant(
        name, "mlm", dict(encoder=encoder), size="gated" if GATED in parts else None, equal="flops"
    )


MODERN_ALL = _with("modern", PRE_NORM, ROTARY, GATED, dict(norm="rms", biases=False))

MODERN = Hypothesis(
    letter="k",
    title="What came after the five papers",
    says="Norms in front, rotary positions, gated MLPs, RMS norms and no biases make a better "
    "masked language model than BERT's encoder at equal FLOPs.",
    against="The modern encoder's loss on held-out text is above BERT's.",
    rows=(
        ResultRow(MLM, "BERT's encoder"),
        ResultRow(MODERN_ALL, "all modern options"),
        ResultRow(_with("modern_pre_norm", PRE_NORM), "norms in front"),
        ResultRow(_with("modern_rotary", ROTARY), "rotary positions"),
        ResultRow(_with("modern_gated", GATED), "gated MLP"),
    ),
    measures=("mlm", "tasks", "parameters", "speed"),
    statements=(
        Statement("all options together lower the loss", "modern", "mlm", "mlm"),
        Statement("all options together help the tasks", "modern", "mlm", "tasks", main=False),
    ),
    note="The gated MLP is two thirds as wide, so that its three matrices have the parameters of "
    "two. The five papers have no numbers on these.",
    drawn=("eval_mlm_loss",),
)
