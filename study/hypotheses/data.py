"""(b) sentence pairs, (c) static masks, (d) rows, (e) batch size, (f) amount of text."""

from __future__ import annotations

from study.hypotheses.objectives import LARGE, MLM
from study.hypothesis import Hypothesis, ResultRow, Statement
from study.variants import Variant

NSP = Variant("bert", "bert", equal="flops")
SOP = Variant("bert_sop", "bert", segments="sop")
WITHOUT_NSP = dict(objective=dict(sentence_pair=False))
NO_PAIR = Variant("bert_no_pair", "bert", WITHOUT_NSP)
FULL = Variant("full", "bert", WITHOUT_NSP, segments="full")
DOC = Variant("doc", "bert", WITHOUT_NSP, segments="doc")
SMALL_BATCH = Variant("mlm_batch_quarter", "mlm", batch_factor=0.25)
LARGE_BATCH = Variant("mlm_batch_4", "mlm", batch_factor=4.0)
QUARTER_TEXT = Variant("mlm_4th", "mlm", subsample=4)
SMALL_TEXT = Variant("mlm_16th", "mlm", subsample=16)
CHANCE = 50.0

PAIRS = Hypothesis(
    letter="b",
    title="Sentence-order prediction, next-sentence prediction, or neither",
    claim="Sentence-order prediction (SOP) helps more than next-sentence prediction (NSP), which "
    "hardly helps. A model trained on NSP cannot predict order; one trained on SOP can predict "
    "next sentences.",
    refuted_by="The mean over tasks is higher with NSP than with SOP, or a model trained on NSP "
    "predicts order better than one trained on SOP.",
    rows=(
        ResultRow(NO_PAIR, "neither", ("79.0", "", ""), scales=LARGE),
        ResultRow(NSP, "NSP", ("79.2", "90.5", "52.0")),
        ResultRow(SOP, "SOP", ("80.1", "78.9", "86.5")),
    ),
    metrics=("nsp", "sop", "sop_counts", "tasks", "mask", "over_counts"),
    statements=(
        Statement("SOP beats NSP on the tasks", "bert_sop", "bert", "tasks", needs_pairs=True),
        Statement(
            "SOP predicts order better than NSP", "bert_sop", "bert", "sop", needs_pairs=True
        ),
    ),
    secondary=(
        Statement(
            "NSP adds at most 1 point to the tasks",
            "bert_no_pair",
            "bert",
            "tasks",
            -1.0,
            needs_pairs=True,
        ),
        *(
            Statement(
                f"{training.upper()} training predicts {what} above chance",
                variant,
                CHANCE,
                metric,
                needs="start",
            )
            for training, variant, what, metric in (
                ("nsp", "bert", "next sentences", "nsp"),
                ("nsp", "bert", "order", "sop"),
                ("sop", "bert_sop", "order", "sop"),
                ("sop", "bert_sop", "next sentences", "nsp"),
            )
        ),
    ),
    paper_columns=("mean of 5 tasks", "NSP accuracy", "SOP accuracy"),
    paper_source="Lan et al. 2020, table 5 (ALBERT-base)",
    note="Accuracy is balanced over the two classes, so chance is 50. SOP is tested on segments "
    "that follow each other, were not trimmed and have lengths whose difference does not tell the "
    "order, each pair in both orders; counts of tokens know how often each stands in first and in "
    "second segments. In SOP training, a row with a single sentence has nothing to swap: as in "
    "ALBERT, it gets a random segment and the label of a swapped pair. These rows are not scored.",
    plots=("nsp", "sop"),
    too_small="The effect on the tasks is within the noise of one seed.",
)


def _static(name: str, masks: int) -> Variant:
    changes = dict(objective=dict(masking=dict(num_static_masks=masks)))
    return Variant(name, "mlm", changes, subsample=16)


MASKS = Hypothesis(
    letter="c",
    title="Static and dynamic masking, over many epochs",
    claim="Over many epochs, dynamic masking is better than one static mask per row, and as good "
    "as several static masks or slightly better.",
    refuted_by="One static mask per row gives a lower loss on held-out text.",
    rows=(
        ResultRow(_static("static_1", 1), "one static mask per row"),
        ResultRow(
            _static("static_8", 8),
            "eight static masks per row",
            ("78.3", "84.3", "92.5"),
            scales=("hour", *LARGE),
        ),
        ResultRow(SMALL_TEXT, "dynamic masking", ("78.7", "84.0", "92.9")),
    ),
    metrics=("mask", "mask_accuracy", "counts", "over_counts", "epochs"),
    statements=(
        Statement(
            "dynamic masking beats one static mask", "mlm_16th", "static_1", "mask", needs="better"
        ),
    ),
    secondary=(
        Statement("dynamic masking beats eight static masks", "mlm_16th", "static_8", "mask"),
    ),
    paper_columns=("SQuAD 2.0 F1", "MNLI", "SST-2"),
    paper_source="Liu et al. 2019, table 1 (base; static: ten masks over forty epochs)",
    note="The training text is one of 16 documents, so that each row repeats often. The masks of "
    "the held-out rows are the same for all variants.",
    plots=("eval_mask_loss",),
)

FORMAT = Hypothesis(
    letter="d",
    title="Rows of segment pairs, full sentences, or single documents",
    claim="Rows of full sentences without NSP are as good as segment pairs with NSP or better. "
    "Rows that stay within one document are slightly better still.",
    refuted_by="Segment pairs with NSP are above full sentences, or above rows of one document, "
    "on the mean over tasks.",
    rows=(
        ResultRow(NSP, "segment pairs, NSP", ("90.4 / 78.7", "84.0", "92.9", "64.2")),
        ResultRow(FULL, "full sentences", ("90.4 / 79.1", "84.7", "92.5", "64.8")),
        ResultRow(DOC, "full sentences of one document", ("90.6 / 79.7", "84.7", "92.7", "65.6")),
    ),
    metrics=("tasks", "tokens", "epochs"),
    statements=(
        Statement("full sentences beat segment pairs", "full", "bert", "tasks"),
        Statement("rows of one document beat segment pairs", "doc", "bert", "tasks"),
    ),
    secondary=(Statement("rows of one document beat full sentences", "doc", "full", "tasks"),),
    paper_columns=("SQuAD 1.1 / 2.0 F1", "MNLI", "SST-2", "RACE"),
    paper_source="Liu et al. 2019, table 2 (base)",
    note="At equal tokens: rows of whole sentences have more padding, so there are more rows.",
    plots=("tasks",),
    too_small="At this size none of these rows differed from another by more than the noise.",
)

BATCH = Hypothesis(
    letter="e",
    title="Batch size, at equal epochs",
    claim="Larger batches, with a matching learning rate, are better at an equal number of epochs, "
    "up to a point.",
    refuted_by="A quarter of the batch size has a lower loss on held-out text.",
    rows=(
        ResultRow(SMALL_BATCH, "a quarter of the batch size", ("3.99", "84.7", "92.7")),
        ResultRow(MLM, "the batch size", ("3.68", "85.2", "92.9")),
        ResultRow(LARGE_BATCH, "four times the batch size", ("3.77", "84.6", "92.8")),
    ),
    metrics=("mask", "over_counts", "tasks", "steps", "speed"),
    statements=(
        Statement("the batch size beats a quarter of it", "mlm", "mlm_batch_quarter", "mask"),
    ),
    secondary=(Statement("the batch size beats four times it", "mlm", "mlm_batch_4", "mask"),),
    paper_columns=("perplexity", "MNLI", "SST-2"),
    paper_source="Liu et al. 2019, table 3 (base): batches of 256, 2k and 8k rows",
    note="Learning rates scale with the square root of the batch size; the paper tuned them.",
    plots=("mask",),
    too_small="A small model learns from more steps, so small batches win at equal epochs; that "
    "says nothing about batches of thousands of rows.",
)

TEXT = Hypothesis(
    letter="f",
    title="More text, at equal steps",
    claim="More text is better at the same number of steps.",
    refuted_by="A part of the text gives a lower loss on the same held-out text.",
    rows=(
        ResultRow(SMALL_TEXT, "one of 16 documents"),
        ResultRow(QUARTER_TEXT, "one of 4 documents", ("93.6 / 87.3", "89.0", "95.3")),
        ResultRow(MLM, "all documents", ("94.0 / 87.7", "89.3", "95.6")),
    ),
    metrics=("mask", "over_counts", "tasks", "epochs"),
    statements=(
        Statement("all text beats one document of 4", "mlm", "mlm_4th", "mask"),
        Statement("one document of 4 beats one of 16", "mlm_4th", "mlm_16th", "mask"),
    ),
    secondary=(
        Statement("all text beats one document of 16 on the tasks", "mlm", "mlm_16th", "tasks"),
    ),
    paper_columns=("SQuAD 1.1 / 2.0 F1", "MNLI", "SST-2"),
    paper_source="Liu et al. 2019, table 4 (large, 100k steps): 16 GB and 160 GB of text",
    plots=("mask",),
    too_small="The text is seen a few times at most, so a quarter of it is nearly as good.",
)
