"""(b) sentence pairs, (c) static masks, (d) rows, (e) batch size, (f) amount of text."""

from __future__ import annotations

from study.hypotheses.objectives import MLM
from study.hypothesis import Hypothesis, ResultRow, Statement
from study.variants import Variant

NSP = Variant("bert", "bert", equal="flops")
SOP = Variant("bert_sop", "bert", segments="sop")
NO_PAIR = Variant("bert_no_pair", "bert", dict(objective=dict(sentence_pair=False)))
CHANCE = 50.0

PAIRS = Hypothesis(
    letter="b",
    title="Sentence order, next sentence, or neither",
    says="Sentence order helps more than next sentence, which hardly helps; a model trained on "
    "next sentences cannot tell their order, one trained on order can tell next sentences.",
    against="The mean over tasks is higher with next sentences than with order, or a model trained "
    "on next sentences tells order better than one trained on it.",
    rows=(
        ResultRow(NO_PAIR, "neither", ("79.0", "", ""), many=True),
        ResultRow(NSP, "next sentence", ("79.2", "90.5", "52.0"), many=True),
        ResultRow(SOP, "sentence order", ("80.1", "78.9", "86.5"), many=True),
    ),
    measures=("tasks", "nsp", "sop"),
    statements=(
        Statement(
            "order beats next sentence on the tasks", "bert_sop", "bert", "tasks", pairs=True
        ),
        Statement(
            "trained on order, a model tells order better than trained on next sentences",
            "bert_sop",
            "bert",
            "sop",
            pairs=True,
        ),
        Statement(
            "next sentences are worth at most 1 point to the tasks",
            "bert_no_pair",
            "bert",
            "tasks",
            -1.0,
            main=False,
            pairs=True,
        ),
        Statement(
            "trained on next sentences, a model tells them better than chance",
            "bert",
            CHANCE,
            "nsp",
            main=False,
        ),
        Statement(
            "trained on order, a model tells order better than chance",
            "bert_sop",
            CHANCE,
            "sop",
            main=False,
        ),
        Statement(
            "trained on order, a model tells next sentences better than chance",
            "bert_sop",
            CHANCE,
            "nsp",
            main=False,
        ),
    ),
    columns=("mean of 5 tasks", "NSP accuracy", "SOP accuracy"),
    source="Lan et al. 2020, table 5 (ALBERT-base)",
    note="Accuracy is the mean over both classes, so 50 is chance whatever the shares. Order is "
    "asked of segments that follow each other, each pair in both orders. In training, a row that "
    "one sentence fills has nothing to swap with: it gets a random segment and the label of a "
    "swapped one, as ALBERT's do; none of these is scored.",
    drawn=("nsp", "sop"),
)


def _small(name: str, copies: int) -> Variant:
    changes = dict(objective=dict(masking=dict(num_static_masks=copies)))
    return Variant(name, "mlm", changes, share=16)


SMALL = Variant("mlm_16th", "mlm", share=16)

MASKS = Hypothesis(
    letter="c",
    title="Static against dynamic masks, over many epochs",
    says="Over many epochs, new masks in each are better than the same one, and as good as several "
    "fixed ones or slightly better.",
    against="One fixed mask for each row gives the lower loss on held-out text.",
    rows=(
        ResultRow(_small("static_1", 1), "one mask for each row"),
        ResultRow(_small("static_8", 8), "eight masks for each row", ("78.3", "84.3", "92.5")),
        ResultRow(SMALL, "a new mask in each epoch", ("78.7", "84.0", "92.9")),
    ),
    measures=("mlm", "tasks", "epochs"),
    statements=(
        Statement("new masks have a lower loss than one fixed mask", "mlm_16th", "static_1", "mlm"),
        Statement(
            "new masks have a lower loss than eight fixed masks",
            "mlm_16th",
            "static_8",
            "mlm",
            main=False,
        ),
        Statement(
            "new masks cost the tasks at most 1 point against eight fixed masks",
            "mlm_16th",
            "static_8",
            "tasks",
            -1.0,
            main=False,
        ),
    ),
    columns=("SQuAD 2.0 F1", "MNLI", "SST-2"),
    source="Liu et al. 2019, table 1 (base; static: ten masks over forty epochs)",
    note="One of 16 documents of the training text, so that each row comes often. The masks of the "
    "held-out rows are the same for all.",
    drawn=("eval_mlm_loss",),
)

FORMAT = Hypothesis(
    letter="d",
    title="Next sentence pairs, full sentences, or documents",
    says="Without next sentences, rows of full sentences do as well or better, and rows that keep "
    "to one document slightly better again.",
    against="Pairs with next sentences are above full sentences, or above rows of one document, on "
    "the mean over tasks.",
    rows=(
        ResultRow(NSP, "pairs of segments, NSP", ("90.4 / 78.7", "84.0", "92.9", "64.2")),
        ResultRow(
            Variant("full", "bert", dict(objective=dict(sentence_pair=False)), segments="full"),
            "full sentences",
            ("90.4 / 79.1", "84.7", "92.5", "64.8"),
        ),
        ResultRow(
            Variant("doc", "bert", dict(objective=dict(sentence_pair=False)), segments="doc"),
            "full sentences of one document",
            ("90.6 / 79.7", "84.7", "92.7", "65.6"),
        ),
    ),
    measures=("tasks", "tokens", "epochs"),
    statements=(
        Statement("full sentences beat pairs", "full", "bert", "tasks"),
        Statement("rows of one document beat pairs", "doc", "bert", "tasks"),
        Statement("rows of one document beat full sentences", "doc", "full", "tasks", main=False),
    ),
    columns=("SQuAD 1.1 / 2.0 F1", "MNLI", "SST-2", "RACE"),
    source="Liu et al. 2019, table 2 (base)",
    note="At equal tokens: rows of whole sentences have more padding, so there are more of them.",
    drawn=("tasks",),
)

BATCH = Hypothesis(
    letter="e",
    title="Batch size, at equal epochs",
    says="Larger batches, with a rate to match, are better at an equal number of passes over the "
    "text, up to a point.",
    against="A quarter of the batch has the lower loss on held-out text.",
    rows=(
        ResultRow(
            Variant("mlm_batch_quarter", "mlm", batch=0.25),
            "a quarter of the batch",
            ("3.99", "84.7", "92.7"),
        ),
        ResultRow(MLM, "the batch", ("3.68", "85.2", "92.9")),
        ResultRow(
            Variant("mlm_batch_4", "mlm", batch=4.0),
            "four times the batch",
            ("3.77", "84.6", "92.8"),
        ),
    ),
    measures=("mlm", "tasks", "steps", "speed"),
    statements=(
        Statement("the batch beats a quarter of it", "mlm", "mlm_batch_quarter", "mlm"),
        Statement("the batch beats four times it, too", "mlm", "mlm_batch_4", "mlm", main=False),
    ),
    columns=("perplexity", "MNLI", "SST-2"),
    source="Liu et al. 2019, table 3 (base): batches of 256, 2k and 8k rows",
    note="Rates go with the root of the batch; the paper's were searched for.",
    drawn=("mlm",),
)

TEXT = Hypothesis(
    letter="f",
    title="More text, at equal steps",
    says="More text is better at the same number of steps.",
    against="A part of the text gives the lower loss on the same held-out text.",
    rows=(
        ResultRow(SMALL, "one of 16 documents"),
        ResultRow(
            Variant("mlm_4th", "mlm", share=4),
            "one of 4 documents",
            ("93.6 / 87.3", "89.0", "95.3"),
        ),
        ResultRow(MLM, "all documents", ("94.0 / 87.7", "89.3", "95.6")),
    ),
    measures=("mlm", "tasks", "epochs"),
    statements=(
        Statement("all text beats one document of 4", "mlm", "mlm_4th", "mlm"),
        Statement("one document of 4 beats one of 16", "mlm_4th", "mlm_16th", "mlm"),
        Statement(
            "all text beats one document of 16 on the tasks", "mlm", "mlm_16th", "tasks", main=False
        ),
    ),
    columns=("SQuAD 1.1 / 2.0 F1", "MNLI", "SST-2"),
    source="Liu et al. 2019, table 4 (large, 100k steps): 16 GB and 160 GB of text",
    drawn=("mlm",),
)
