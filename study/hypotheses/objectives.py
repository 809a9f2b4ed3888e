"""(g) what is masked, and the span boundary; (h) replaced tokens against masked ones."""

from __future__ import annotations

from typing import Any

from study.hypothesis import Hypothesis, ResultRow, Statement
from study.variants import Variant


def _span(name: str, unit: str, words: int, sbo: float = 0.0) -> Variant:
    """SpanBERT's rows, budget and random tokens, with another unit."""
    fate = "span" if unit == "span" else "token"
    masking = dict(granularity=unit, max_ngram=words, replace_per=fate)
    return Variant(
        name, "spanbert", dict(objective=dict(masking=masking, sbo_weight=sbo)), long=True
    )


SPANS = Hypothesis(
    letter="g",
    title="Spans and their boundary, on question answering",
    says="Masking spans helps extractive question answering over masking single tokens, and "
    "predicting a span from its boundary helps again.",
    against="Single tokens are above spans on F1, or spans alone above spans with their boundary.",
    rows=(
        ResultRow(_span("masks_token", "token", 1), "single tokens", ("83.8", "72.0", "76.3")),
        ResultRow(_span("masks_word", "word", 1), "whole words", ("84.3", "72.8", "77.1")),
        ResultRow(_span("masks_ngram", "ngram", 3), "n-grams of up to 3 words"),
        ResultRow(_span("masks_span", "span", 10), "spans", ("85.4", "73.0", "78.8"), many=True),
        ResultRow(
            _span("masks_span_sbo", "span", 10, 1.0),
            "spans and the boundary term",
            ("86.8", "74.1", "80.3"),
        ),
    ),
    measures=("qa", "qa_exact", "epochs"),
    statements=(
        Statement("spans beat single tokens", "masks_span", "masks_token", "qa"),
        Statement("the boundary term helps", "masks_span_sbo", "masks_span", "qa"),
    ),
    columns=("SQuAD 2.0 F1", "NewsQA F1", "TriviaQA F1"),
    source="Joshi et al. 2019, tables on masking and objectives, large model; the first three rows "
    "with sentence pairs and NSP, the last with single rows, where spans alone have 86.7, 73.4 and "
    "80.0",
    note="Contexts are cut to a window around the answer, so that they fit into a row.",
    drawn=("qa",),
)


MLM = Variant("mlm", "mlm", equal="flops")


def _rtd(name: str, **objective: Any) -> Variant:
    return Variant(name, "electra", dict(objective=objective), equal="flops")


RTD = _rtd("rtd", generator_size=0.25)

REPLACED = Hypothesis(
    letter="h",
    title="Replaced tokens against masked ones, at equal FLOPs",
    says="Telling which tokens were replaced teaches more than predicting masked ones from the "
    "same compute; most of it since every token counts, some since no [MASK] is seen. A generator "
    "of a quarter to half the width is best, and its embeddings should be shared.",
    against="The masked language model is above replaced tokens on the mean over tasks: by more "
    "than chance, which decides, or in 2 of 3 seeds, which is told beside it.",
    rows=(
        ResultRow(MLM, "masked language model", ("82.2", ""), first=True),
        ResultRow(RTD, "replaced tokens, generator 1/4", ("85.0", "84.4"), first=True),
        ResultRow(
            _rtd("rtd_masked", generator_size=0.25, target="rtd_masked"),
            "... loss on masked tokens alone",
            ("82.4", ""),
        ),
        ResultRow(
            _rtd("replace_mlm", generator_size=0.25, target="replace_mlm", weight=1.0),
            "Replace MLM",
            ("82.4", ""),
        ),
        ResultRow(
            _rtd("all_tokens_mlm", generator_size=0.25, target="all_tokens_mlm", weight=1.0),
            "All-Tokens MLM",
            ("84.3", ""),
        ),
        ResultRow(_rtd("rtd_eighth", generator_size=0.125), "replaced tokens, generator 1/8"),
        ResultRow(_rtd("rtd_half", generator_size=0.5), "replaced tokens, generator 1/2"),
        ResultRow(_rtd("rtd_whole", generator_size=1.0), "replaced tokens, generator 1"),
        ResultRow(
            _rtd("rtd_words", generator_size=0.25, tied="words"),
            "generator 1/4, word table shared",
            ("", "84.3"),
        ),
        ResultRow(
            _rtd("rtd_untied", generator_size=0.25, tied="none"),
            "generator 1/4, nothing shared",
            ("", "83.6"),
        ),
    ),
    measures=("tasks", "flops", "rtd_auc", "speed"),
    statements=(
        Statement("replaced tokens beat masked ones", "rtd", "mlm", "tasks"),
        Statement(
            "replaced tokens are above masked ones in most seeds, at least 2 of 3",
            "rtd",
            "mlm",
            "tasks",
            main=False,
            most=True,
        ),
        Statement(
            "loss on all tokens beats loss on masked ones", "rtd", "rtd_masked", "tasks", main=False
        ),
        Statement(
            "All-Tokens MLM beats the masked language model",
            "all_tokens_mlm",
            "mlm",
            "tasks",
            main=False,
        ),
        Statement(
            "a generator of 1/4 beats one of full size", "rtd", "rtd_whole", "tasks", main=False
        ),
        Statement("shared embeddings beat separate ones", "rtd", "rtd_untied", "tasks", main=False),
    ),
    columns=("GLUE, dev", "GLUE, dev: embeddings"),
    source="Clark et al. 2020, the efficiency analysis (base size) and the section on weight "
    "sharing (generator of equal size, 500k steps)",
    note="Where the loss is on masked tokens alone, so is the AUC.",
    many=True,
    drawn=("tasks", "eval_mlm_loss", "eval_rtd_auc"),
)
