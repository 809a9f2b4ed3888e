"""(a) shared layers, (i) five families, (j) features by layer, (k) modern encoders."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from study.hypotheses.objectives import LARGE, MLM, RTD
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
    claim="One set of parameters for all layers, with factorized embeddings, keeps most of the "
    "quality with a fraction of the parameters, and saves no time.",
    refuted_by="The shared, factorized model loses more than 3 points of the mean over tasks.",
    rows=(
        ResultRow(BERT, "neither (BERT)", ("108M", "82.3")),
        ResultRow(FACTORISED, "factorized embeddings", ("89M", "81.6")),
        ResultRow(SHARED_ATTENTION, "shared attention", ("83M", "81.6"), scales=LARGE),
        ResultRow(SHARED_MLP, "shared MLP", ("57M", "79.5"), scales=LARGE),
        ResultRow(SHARED, "shared layers", ("31M", "79.8")),
        ResultRow(BOTH, "both (ALBERT's encoder)", ("12M", "80.1")),
    ),
    metrics=("tasks", "mask", "over_counts", "parameters", "speed"),
    statements=(
        Statement("both cost at most 3 points", "bert_shared_factorised", "bert", "tasks", -3.0),
    ),
    secondary=(
        Statement("factorizing costs at most 1 point", "bert_factorised", "bert", "tasks", -1),
        Statement(
            "sharing attention beats sharing the MLP",
            "bert_shared_attention",
            "bert_shared_mlp",
            "tasks",
        ),
    ),
    paper_columns=("parameters", "mean of 5 tasks"),
    paper_source="Lan et al. 2020, tables 3 and 4 (ALBERT-base; parameters and the rows of "
    "768-wide embeddings from memory)",
    plots=("tasks", "mask"),
    too_small="A difference of 3 points of the mean over tasks is within the noise of one seed.",
)


ALBERT = Variant("albert", "albert", size="factorised", equal="flops")
ROBERTA = Variant("roberta", "roberta", equal="flops")
SPANBERT = Variant("spanbert", "spanbert", equal="flops")
ALBERT_WIDE = Variant("albert_wide", "albert", size="wide")
ELECTRA_ROWS = Variant("electra_rows", "electra", dict(objective=dict(generator_size=0.25)))

FAMILIES_COMPARED = Hypothesis(
    letter="i",
    title="The five families, at equal FLOPs and at equal parameters",
    claim="At equal compute, replaced-token detection teaches more than masked language modeling. "
    "At equal parameters, a wide model with shared layers is better than BERT, at several times "
    "the compute.",
    refuted_by="ELECTRA is below BERT at equal FLOPs, or the wide ALBERT at equal parameters.",
    rows=(
        ResultRow(BERT, "BERT", ("110M", "82.2", "84.4")),
        ResultRow(RTD, "ELECTRA, equal FLOPs", ("110M", "85.1", "88.8")),
        ResultRow(ALBERT, "ALBERT, equal FLOPs", ("12M", "", "81.6")),
        ResultRow(ROBERTA, "RoBERTa", ("125M", "86.4", "87.6")),
        ResultRow(SPANBERT, "SpanBERT", ("110M", "", "")),
        ResultRow(ELECTRA_ROWS, "ELECTRA, equal parameters and tokens", scales=LARGE),
        ResultRow(ALBERT_WIDE, "ALBERT, equal parameters and tokens", scales=LARGE),
    ),
    metrics=("tasks", "mask", "counts", "over_counts", "rtd_auc", "parameters", "tokens"),
    statements=(
        Statement("ELECTRA beats BERT at equal FLOPs", "rtd", "bert", "tasks"),
        Statement("a wide ALBERT beats BERT at equal parameters", "albert_wide", "bert", "tasks"),
    ),
    secondary=(
        Statement("ELECTRA beats BERT at equal parameters", "electra_rows", "bert", "tasks"),
        Statement("ALBERT is below BERT at equal FLOPs", "bert", "albert", "tasks"),
    ),
    paper_columns=("parameters", "GLUE, dev", "MNLI, dev"),
    paper_source="base models as published. GLUE of BERT and ELECTRA at equal FLOPs: Clark et al. "
    "2020, table 1. The other models differ in training: Devlin et al. 2019 (from memory), the "
    "released ELECTRA-Base, the README of ALBERT-base v1, Liu et al. 2019, appendix (the mean is "
    "ours)",
    note="Each family has its own tokenizer, rows, masks and objective; all share the optimizer, "
    "the batch size and the learning rate. ELECTRA's parameters are its discriminator's. FLOPs "
    "and tokens exclude padding: rows of whole sentences (RoBERTa, SpanBERT) have more padding, "
    "so there are more rows.",
    many_seeds=True,
    plots=("tasks", "over_counts"),
    too_small="The five families are in [results](results.md), each beside its own counts.",
)

LAYERS = Hypothesis(
    letter="j",
    title="Features by layer",
    claim="A linear probe on frozen features tags entities best from the middle layers and "
    "classifies texts best from the last layers.",
    refuted_by="For BERT, tagging is better on the last layer than on the middle layer, or "
    "classification is better on the middle layer than on the last.",
    rows=(ResultRow(BERT, "BERT"), ResultRow(RTD, "ELECTRA")),
    metrics=("tagging_middle", "tagging_last", "texts_middle", "texts_last"),
    statements=(
        Statement(
            "tagging: middle above last layer", "bert", "bert", "tagging_middle>tagging_last"
        ),
        Statement(
            "classification: last above middle layer", "bert", "bert", "texts_last>texts_middle"
        ),
    ),
    note="The middle layer is the second of four, whatever the scores: the best of several layers "
    "would be chosen on the scored rows. The papers have no table of linear probes by layer; the "
    "hypothesis is that of Liu et al. 2019 and Tenney et al. 2019 on features.",
    many_seeds=True,
    probes=True,
    too_small="The layers of a model of four layers differ by less than the noise.",
)

PLAIN_MLP = dict(gated_mlp=False)
LEARNED = dict(positions="learned")
POST_NORM = dict(pre_norm=False)
BIASES = dict(biases=True)


def _with(name: str, *parts: Mapping[str, Any]) -> Variant:
    encoder = {k: v for part in parts for k, v in part.items()}
    size = "plain" if PLAIN_MLP in parts else None
    return Variant(name, "mlm", dict(encoder=encoder), size=size, equal="flops")


MODERN = Hypothesis(
    letter="k",
    title="Later improvements of the encoder",
    claim="Rotary positions, pre-norm and gated MLPs without biases make a better masked language "
    "model than BERT's encoder at equal FLOPs.",
    refuted_by="BERT's encoder has a lower loss at `[MASK]`.",
    rows=(
        ResultRow(MLM, "all later options", many_seeds=True),
        ResultRow(_with("learned_positions", LEARNED), "learned positions"),
        ResultRow(_with("post_norm", POST_NORM), "norms after each layer", scales=LARGE),
        ResultRow(_with("plain_mlp", PLAIN_MLP, BIASES), "plain MLP, biases", scales=LARGE),
        ResultRow(
            _with("original_encoder", LEARNED, POST_NORM, PLAIN_MLP, BIASES), "BERT's encoder"
        ),
    ),
    metrics=("mask", "mask_accuracy", "counts", "over_counts", "parameters", "speed"),
    statements=(
        Statement(
            "the later options lower the loss", "mlm", "original_encoder", "mask", needs="better"
        ),
    ),
    secondary=(
        Statement(
            "rotary positions lower the loss", "mlm", "learned_positions", "mask", needs="better"
        ),
    ),
    note="Optimizer and rows are the same for all, so BERT's encoder is trained with Muon and on "
    "rows of full length from the start. The plain MLP has as many parameters as the gated one. "
    "The five papers have no numbers on these options.",
    plots=("eval_mask_loss",),
)
