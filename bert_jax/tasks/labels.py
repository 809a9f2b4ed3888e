"""The labels of a dataset: their order, which splits have them, and what looks like a mistake."""

from __future__ import annotations

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, cast

from bert_jax.config import TaskType
from bert_jax.tasks.entities import all_tags
from bert_jax.tasks.examples import (
    ANSWERABLE_LABELS,
    Example,
    QuestionExample,
    TaggingExample,
    TextExample,
    is_labeled,
    label_names,
)
from bert_jax.tasks.records import MARKERS, LocatedExample
from bert_jax.tasks.tag_scheme import bare_beginnings, recognize_scheme

Splits = dict[str, list[LocatedExample]]
UnknownLabels = Literal["refuse", "ignore"]
MAX_LISTED = 10  # labels in a message


def has_label_list(splits: Splits) -> bool:
    """Whether a row has a list of labels, so that the task is multi-label."""
    return any(
        isinstance(e, TextExample) and isinstance(e.label, tuple)
        for rows in splits.values()
        for _, e in rows
    )


def as_multilabel(row: LocatedExample) -> LocatedExample:
    """The row with its label as a list of one."""
    location, e = row
    if isinstance(e, TextExample) and isinstance(e.label, str):
        return location, e._replace(label=(e.label,))
    return row


def collect_labels(task_type: TaskType, train: Sequence[LocatedExample]) -> tuple[str, ...]:
    """The labels of the training examples, in the order of the logits: sorted, as integers if all
    are integers. ValueError: one class only."""
    if task_type in ("regression", "choice", "rerank"):
        return ()
    if task_type == "qa":
        impossible = any(isinstance(e, QuestionExample) and e.impossible for _, e in train)
        return ANSWERABLE_LABELS if impossible else ()
    labels = {label for _, e in train for label in label_names(e)}
    if any(isinstance(e, TaggingExample) and e.spans is not None for _, e in train):
        labels = all_tags(labels)
    if task_type == "multilabel" and not labels:
        raise ValueError(f"{train[0][0].file}: no row has a label: expected at least one label")
    if len(labels) < 2 and task_type != "multilabel":
        file = train[0][0].file
        raise ValueError(f"{file}: one class only ({', '.join(labels)}): expected at least two")
    if all(_is_integer(label) for label in labels):
        return tuple(sorted(labels, key=lambda label: (int(label), label)))
    return tuple(sorted(labels))


def _is_integer(label: str) -> bool:
    return label.removeprefix("-").isdecimal() and label.isascii()


def check_labeled(task_type: TaskType, splits: Splits) -> None:
    """ValueError: a split that must have labels (train, dev) has none that can be used."""
    reasons = {
        "qa": "no question has an answer in its context, and none is marked `is_impossible`",
        "tagging": "no row has a token with a tag",
    }
    for split, rows in splits.items():
        train, dev = split == "train", split.startswith("dev")
        if not (train or dev) or any(_is_usable(e, train) for _, e in rows):
            continue
        use = "nothing can be trained on" if train else "no checkpoint can be chosen by it"
        reason = reasons.get(task_type, "no row has a label")
        raise ValueError(f"{rows[0][0].file}: {reason}, so {use}: label some rows of it")


def _is_usable(example: Example, train: bool) -> bool:
    if train and isinstance(example, QuestionExample):
        return example.impossible or any(answer.start >= 0 for answer in example.answers)
    return is_labeled(example)


def handle_unknown(
    task_type: TaskType, splits: Splits, labels: Sequence[str], unknown: UnknownLabels
) -> tuple[Splits, list[str]]:
    """The splits, in which labels that train does not have are unlabeled, and notes that count
    them. ValueError: with "refuse" there are such labels."""
    if task_type not in ("classification", "multilabel", "tagging"):
        return splits, []
    known, handled, notes = set(labels), dict(splits), []
    for split, rows in splits.items():
        found = [(where, n) for where, e in rows for n in label_names(e) if n not in known]
        if not found:
            continue
        counts = Counter(name for _, name in found)
        if unknown == "refuse":
            location, name = found[0]
            raise ValueError(
                f"{location}: unknown label {name!r:.60}: expected one of {_listed(labels)}, as in "
                f"train (in this split: {_counted(counts)}). --unknown-labels ignore leaves such "
                "labels out of the scores"
                + (f"; --objective.unlabeled={name} if it is no label" * (name in MARKERS))
                + "".join(f"; {alike}" for alike in _near_duplicates([*labels, name], {name}))
            )
        file = rows[0][0].file
        note = f"{file}: labels that train does not have, not scored: {_counted(counts)}"
        note += "; the other labels of these rows are" * (task_type == "multilabel")
        notes += [note, *_near_duplicates([*labels, *counts], set(counts))]
        handled[split] = [(where, _without_unknown(e, known)) for where, e in rows]
    return handled, notes


def _without_unknown(example: Example, known: set[str]) -> Example:
    if isinstance(example, TaggingExample) and example.tags is not None:
        return example._replace(tags=tuple(t if t in known else None for t in example.tags))
    if isinstance(example, TextExample) and isinstance(example.label, tuple):
        return example._replace(label=tuple(n for n in example.label if n in known))
    if isinstance(example, TextExample) and not set(label_names(example)) <= known:
        return example._replace(label=None)
    return example


def _listed(labels: Iterable[str]) -> str:
    names = list(labels)
    return ", ".join(names[:MAX_LISTED]) + (", ..." if len(names) > MAX_LISTED else "")


def _counted(counts: Mapping[str, int]) -> str:
    return _listed(f"{name!r:.60} {n}" for name, n in counts.items())


# ---- notes


def label_notes(task_type: TaskType, splits: Splits, labels: Sequence[str]) -> list[str]:
    """What a reader of the scores should know of the labels: the scheme of tags, names that differ
    in case or spaces only, names that look like "no label"."""
    if task_type not in ("classification", "multilabel", "tagging"):
        return []
    notes = [*_near_duplicates(labels), *_suspected_markers(splits, labels)]
    return notes + (_scheme_notes(splits, labels) if task_type == "tagging" else [])


def _near_duplicates(labels: Sequence[str], unknown: Collection[str] = ()) -> Iterator[str]:
    """A note on each group of labels that look alike; with labels that are `unknown` to train, on
    the groups that have one of these."""
    groups: dict[str, list[str]] = defaultdict(list)
    for label in labels:
        plain = "".join(unicodedata.normalize("NFKC", label).casefold().split())
        groups[str(int(plain)) if _is_integer(plain) else plain].append(label)
    for group in groups.values():
        if len(group) > 1 and not (unknown and set(unknown).isdisjoint(group)):
            what = "are not the same label" if unknown else "are classes"
            yield (
                "labels that differ only in case, spaces, zeros before a number or Unicode form "
                f"{what}: {', '.join(map(ascii, group))}"
            )


def _suspected_markers(splits: Splits, labels: Sequence[str]) -> Iterator[str]:
    others = set(labels) - MARKERS
    counts: Counter[str] = Counter()
    for split, rows in splits.items():
        if split == "train" or split.startswith("dev"):
            counts.update(label for _, e in rows for label in label_names(e) if label in MARKERS)
    ranks = {str(i) for i in range(len(others))}
    for label, n in counts.items():
        if (label == "-" and any(map(str.isalnum, others))) or (label == "-1" and others == ranks):
            yield (
                f"label {label!r} of {n} rows or words is a class: if it means that there is no "
                f"label, pass --objective.unlabeled={label}"
            )


def _scheme_notes(splits: Splits, labels: Sequence[str]) -> list[str]:
    scheme = recognize_scheme(labels)
    if scheme is None:
        return ["tags mark no entities, so words are scored: word_accuracy and word_f1"]
    notes = [f"tags mark entities ({scheme}): f1 is of whole entities"]
    examples = [cast(TaggingExample, e) for _, e in splits["train"]]
    if scheme.strays:
        counts = Counter(tag for e in examples for tag in e.tags or () if tag in scheme.strays)
        notes.append(
            f"tags outside of that scheme, each counted as an entity type: {_counted(counts)}"  # type: ignore[arg-type]
        )
    bare = bare_beginnings(scheme, ([t for t in e.tags or () if t] for e in examples))
    if bare:
        notes.append(
            f"entities in train that begin with I or E although there is B: {bare}; "
            "--objective.tag-scoring strict does not count such entities"
        )
    return notes


def label_counts(splits: Mapping[str, Sequence[Example]], labels: Sequence[str]) -> list[str]:
    """Per split, one line: its rows and how many rows (of tagging: words) each class has."""
    lines = []
    for split, examples in splits.items():
        counts = Counter(name for e in examples for name in label_names(e))
        unlabeled = sum(not is_labeled(e) for e in examples)
        parts: list[Any] = [f"{label} {counts[label]}" for label in labels if counts[label]]
        shown = ", ".join(parts[:20]) + (f", ... ({len(parts)} classes)" if len(parts) > 20 else "")
        missing = f"; {unlabeled} without a label" if unlabeled else ""
        lines.append(f"{split}: {len(examples)} rows" + (f": {shown}" if shown else "") + missing)
    return lines
