"""(g) masking granularity and the span boundary objective; (h) replaced-token detection."""

from __future__ import annotations

from typing import Any

from study.hypothesis import Hypothesis, ResultRow, Statement
from study.variants import Variant

LARGE = ("gpu", "smoke")  # presets that also run the ablations


def _span(name: str, granularity: str, max_ngram: int, sbo_weight: float = 0.0) -> Variant:
    """SpanBERT's rows, budget and random tokens, with another granularity."""
    replace_per = "span" if granularity == "span" else "token"
    masking = dict(granularity=granularity, max_ngram=max_ngram, replace_per=replace_per)
    changes = dict(objective=dict(masking=masking, sbo_weight=sbo_weight))
    return Variant(name, "spanbert", changes, long_rows=True)


SPANS = Hypothesis(
    letter="g",
    title="Span masking and the span boundary objective, on question answering",
    claim="For extractive question answering, masking spans is better than masking single tokens, "
    "and the span boundary objective (SBO) helps further.",
    refuted_by="F1 is higher with single tokens than with spans, or higher without SBO than with "
    "it.",
    rows=(
        ResultRow(_span("masks_token", "token", 1), "single tokens", ("83.8", "72.0", "76.3")),
        ResultRow(
            _span("masks_word", "word", 1), "whole words", ("84.3", "72.8", "77.1"), scales=LARGE
        ),
        ResultRow(_span("masks_ngram", "ngram", 3), "n-grams of up to 3 words", scales=LARGE),
        ResultRow(
            _span("masks_span", "span", 10), "spans", ("85.4", "73.0", "78.8"), many_seeds=True
        ),
        ResultRow(
            _span("masks_span_sbo", "span", 10, 1.0), "spans and SBO", ("86.8", "74.1", "80.3")
        ),
    ),
    metrics=("qa", "qa_exact", "mask", "over_counts", "epochs"),
    statements=(
        Statement("spans beat single tokens", "masks_span", "masks_token", "qa"),
        Statement("SBO helps", "masks_span_sbo", "masks_span", "qa"),
    ),
    paper_columns=("SQuAD 2.0 F1", "NewsQA F1", "TriviaQA F1"),
    paper_source="Joshi et al. 2019, tables on masking and objectives, large model; the first "
    "three rows with sentence pairs and NSP, the last with single segments, where spans alone "
    "have 86.7, 73.4 and 80.0",
    note="Contexts are cut to a window around the answer, so that they fit into a row.",
    plots=("qa",),
    too_small="Models of this size find a seventh of the answers, whatever was masked.",
)


MLM = Variant("mlm", "mlm", equal="flops")


def _rtd(name: str, generator_size: float = 0.25, **objective: Any) -> Variant:
    objective["generator_size"] = generator_size
    return Variant(name, "electra", dict(objective=objective), equal="flops")


RTD = _rtd("rtd")
RTD_MASKED = _rtd("rtd_masked", target="rtd_masked")
REPLACE_MLM = _rtd("replace_mlm", target="replace_mlm", weight=1.0)
ALL_TOKENS_MLM = _rtd("all_tokens_mlm", target="all_tokens_mlm", weight=1.0)
SHARED_WORDS = _rtd("rtd_words", tied="words")
UNTIED = _rtd("rtd_untied", tied="none")
DISENTANGLED = _rtd("rtd_disentangled", tied="gradient_disentangled")

REPLACED = Hypothesis(
    letter="h",
    title="Replaced-token detection and masked language modeling, at equal FLOPs",
    claim="Replaced-token detection (RTD) teaches more than masked language modeling (MLM) with "
    "the same compute, mostly because every token has a loss, partly because the input has no "
    "[MASK]. A generator of a quarter to half the width is best, with shared embeddings.",
    refuted_by="MLM is above RTD on the mean over tasks by more than the noise.",
    rows=(
        ResultRow(MLM, "MLM", ("82.2", ""), priority=True),
        ResultRow(RTD, "RTD, generator 1/4", ("85.0", "84.4"), priority=True),
        ResultRow(RTD_MASKED, "RTD, loss on masked tokens only", ("82.4", ""), scales=LARGE),
        ResultRow(REPLACE_MLM, "Replace MLM", ("82.4", ""), scales=LARGE),
        ResultRow(ALL_TOKENS_MLM, "All-Tokens MLM", ("84.3", ""), scales=LARGE),
        ResultRow(_rtd("rtd_eighth", generator_size=0.125), "RTD, generator 1/8", scales=LARGE),
        ResultRow(_rtd("rtd_half", generator_size=0.5), "RTD, generator 1/2", scales=LARGE),
        ResultRow(_rtd("rtd_whole", generator_size=1.0), "RTD, generator 1", scales=LARGE),
        ResultRow(SHARED_WORDS, "RTD, shared word embeddings", ("", "84.3"), scales=LARGE),
        ResultRow(UNTIED, "RTD, separate embeddings", ("", "83.6"), scales=LARGE),
        ResultRow(DISENTANGLED, "RTD, gradient-disentangled embeddings", scales=LARGE),
    ),
    metrics=(
        "tasks",
        "probes_first",
        "probes_middle",
        "probes_last",
        "mask",
        "rtd_auc",
        "over_counts",
        "flops",
    ),
    statements=(Statement("RTD beats MLM", "rtd", "mlm", "tasks"),),
    secondary=(
        Statement("early in training, RTD beats MLM", "rtd", "mlm", "tasks", needs="start"),
        Statement(
            "early in training, a linear probe on the middle layer is better with RTD",
            "rtd",
            "mlm",
            "probes_middle",
            needs="start",
        ),
        Statement("loss on all tokens beats masked tokens only", "rtd", "rtd_masked", "tasks"),
        Statement("All-Tokens MLM beats MLM", "all_tokens_mlm", "mlm", "tasks"),
        Statement("a generator of 1/4 beats one of full size", "rtd", "rtd_whole", "tasks"),
        Statement("shared embeddings beat separate ones", "rtd", "rtd_untied", "tasks"),
        Statement(
            "gradient-disentangled embeddings beat shared ones", "rtd_disentangled", "rtd", "tasks"
        ),
        Statement(
            "gradient-disentangled embeddings beat separate ones",
            "rtd_disentangled",
            "rtd_untied",
            "tasks",
        ),
    ),
    paper_columns=("GLUE, dev", "GLUE, dev: embeddings"),
    paper_source="Clark et al. 2020, the efficiency analysis (base size) and the section on weight "
    "sharing (generator of equal size, 500k steps)",
    note="The loss at `[MASK]` of an RTD run is its generator's. The AUC is that of the "
    "discriminator over text with the generator's samples, special tokens left out. Probes on "
    "the embeddings show what needs no context.",
    many_seeds=True,
    plots=("tasks", "eval_mask_loss", "eval_rtd_auc"),
    probes=True,
)
