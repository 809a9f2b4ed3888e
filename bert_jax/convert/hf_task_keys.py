"""Keys of config.json that describe the head of a fine-tuned model: read and checked."""

from __future__ import annotations

from bert_jax.config import ROBERTA_LIKE, TaskType
from bert_jax.convert.hf_families import ELECTRA, MODERNBERT
from bert_jax.convert.hf_name_rules import Family
from bert_jax.utils.text_lines import without_surrogates
from bert_jax.utils.types import Json, is_number

MULTILABEL = "multi_label_classification"
PROBLEM_TYPES = {  # of the classes for texts
    "classification": "single_label_classification",
    "multilabel": MULTILABEL,
    "regression": "regression",
    "rerank": "regression",
}
# How CrossEncoder of sentence-transformers turns a logit into a score: our rerankers, and those for
# MS MARCO, leave it as it is.
CROSS_ENCODER = "sentence_transformers"
OLD_CROSS_ENCODER = "sbert_ce_default_activation_function"  # its key before version 4
# Our entries of config.json, which transformers does not know.
TEXT_PAIRS = "text_pairs"
THRESHOLDS = "thresholds"
NO_ANSWER = "no_answer_threshold"
IDENTITY = "torch.nn.modules.linear.Identity"


def drop_flag(family: Family, task_type: TaskType) -> str:
    """The flag of `import` that leaves out the head of a task."""
    key: TaskType = "classification" if task_type in PROBLEM_TYPES else task_type
    table = family.tasks[key].table
    modules = {m.split(".")[0] for m in table if not m.startswith(family.prefix)}
    return f"--drop {' '.join(sorted(modules))}"


def read_labels(hf: Json) -> tuple[str, ...]:
    """The label names in order; LABEL_0, ... as in Hugging Face if there are none."""
    id2label, count = hf.get("id2label"), hf.get("num_labels", 2)
    if id2label is None and isinstance(count, int) and not isinstance(count, bool) and count > 0:
        return tuple(f"LABEL_{i}" for i in range(count))
    if isinstance(id2label, dict) and id2label:
        by_number = {str(k): v for k, v in id2label.items()}
        numbers = [str(i) for i in range(len(id2label))]
        if sorted(by_number) == sorted(numbers):
            return tuple(without_surrogates(str(by_number[i])) for i in numbers)
    raise ValueError(
        f"config.json has id2label {id2label!r}: expected a name for each number from 0 on"
    )


def read_thresholds(hf: Json, labels: tuple[str, ...]) -> tuple[float, ...]:
    """The `thresholds` of an exported multi-label head, in the order of its labels; () if it has
    none, which means .5."""
    by_label = hf.get(THRESHOLDS)
    if by_label is None:
        return ()
    if (
        not isinstance(by_label, dict)
        or sorted(by_label) != sorted(labels)
        or not all(is_number(t) and 0 <= t <= 1 for t in by_label.values())
    ):
        raise ValueError(
            f"config.json has {THRESHOLDS} {by_label!r:.80}: expected a number for each label, or "
            "remove the entry for 0.5"
        )
    return tuple(by_label[label] for label in labels)


def read_no_answer_threshold(hf: Json) -> float:
    """That of an export of ours that was trained on questions without an answer, else 0."""
    threshold = hf.get(NO_ANSWER, 0.0)
    if not is_number(threshold):
        raise ValueError(
            f"config.json has {NO_ANSWER} {threshold!r:.80}: expected a number, or no such entry "
            "where every question has an answer"
        )
    return float(threshold)


def read_text_pairs(hf: Json) -> bool | None:
    """Whether an export of ours was trained on pairs of texts; None if it does not say."""
    pairs = hf.get(TEXT_PAIRS)
    if pairs is not None and not isinstance(pairs, bool):
        raise ValueError(
            f"config.json has {TEXT_PAIRS} {pairs!r:.80}: expected true or false; correct or "
            "remove the entry"
        )
    return pairs


def is_regression(family: Family, hf: Json, labels: tuple[str, ...]) -> bool:
    """Whether a class for texts gives a number. ValueError: a problem type without a head here."""
    problem = hf.get("problem_type")
    if problem is None:
        return len(labels) == 1
    if problem == "regression" and len(labels) == 1:
        return True
    if problem == "single_label_classification":
        return False
    raise ValueError(
        f"config.json has problem_type {problem!r} with {len(labels)} labels: expected "
        "single_label_classification, multi_label_classification, or regression of one number; "
        f"for the encoder alone, drop the head's tensors: {drop_flag(family, 'classification')}"
    )


def check_summary(hf: Json) -> None:
    """ValueError: another summary of a text than that of ELECTRA's head for choices."""
    for key, required in (("type", "first"), ("use_proj", True), ("activation", "gelu")):
        value = hf.get(f"summary_{key}", required)
        if value != required:
            raise ValueError(
                f"config.json has summary_{key} {value!r}: only {required!r} can be imported"
            )


def read_dropout(family: Family, hf: Json, task_type: str) -> float:
    """The dropout of the head. ValueError: not a number."""
    general = "dropout" if family.name == "distilbert" else "hidden_dropout_prob"
    rates = [hf.get(key) for key in (*dropout_keys(family, task_type), general)]
    default = 0.0 if family is MODERNBERT else 0.1
    rate = next((r for r in rates if r is not None), default)
    if not isinstance(rate, int | float):
        raise ValueError(f"config.json has a dropout of {rate!r} for its head: expected a number")
    return float(rate)


def dropout_keys(family: Family, task_type: str) -> tuple[str, ...]:
    """The config.json keys of the head's dropout."""
    if family.name == "modernbert":
        return ("classifier_dropout",)
    if family.name == "distilbert":
        own = {"tagging": (), "qa": ("qa_dropout",)}
        return own.get(task_type, ("seq_classif_dropout",))
    if task_type == "choice" and (family is ELECTRA or family.name in ROBERTA_LIKE):
        return ("summary_last_dropout",) if family is ELECTRA else ()
    return ("classifier_dropout_prob",) if family.name == "albert" else ("classifier_dropout",)
