"""How tags mark entities: the scheme is recognized from the names of the tags.

    scheme   tags of "New York is big"      also
    BIO      B-LOC  I-LOC  O  O             IOB1, where an entity may begin with I
    BIOES    B-LOC  E-LOC  O  O             S for single words; BILOU has L U, BMEWO has M W;
                                            with single words only, S (U, W) may stand alone
    IO       LOC    LOC    O  O             or I-LOC; neighbors of one type are one entity

The marker may stand before or behind the type, separated by `- _ : . / |`, or alone (`B I O`), in
either case. Tags that do not fit the scheme of the others (strays) count as a type of their own.
Entities are compared by seqeval: `lenient` as CoNLL's script does, where I without a B begins an
entity; `strict` counts only entities that are written as the scheme demands.
"""

from __future__ import annotations

import itertools
import re
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Scoring = Literal["lenient", "strict"]

OUTSIDE = ("O", "o")
MARKERS = {"B": "B", "I": "I", "M": "I", "E": "E", "L": "E", "S": "S", "U": "S", "W": "S"}
PREFIX = re.compile(r"([BIMELSUW])[-_:./|](.+)", re.IGNORECASE | re.DOTALL)
SUFFIX = re.compile(r"(.+)[-_:./|]([BIMELSUW])", re.IGNORECASE | re.DOTALL)
UNTYPED = "entity"  # the type of tags that name none


@dataclass(frozen=True)
class TagScheme:
    """A recognized scheme.

    name    BIO, BIOES (with its other letters) or IO
    layout  where the type stands: "prefix" (B-PER), "suffix" (PER-B), "untyped" (B), "type" (PER)
    tags    each label as (marker, type), the marker one of B I E S, or O
    strays  labels that do not fit the scheme
    """

    name: Literal["BIO", "BIOES", "IO"]
    layout: Literal["prefix", "suffix", "untyped", "type"]
    tags: dict[str, tuple[str, str]]
    strays: tuple[str, ...] = ()

    def __str__(self) -> str:
        where = {
            "prefix": "the marker before the type",
            "suffix": "the marker behind the type",
            "untyped": "without types",
            "type": "types without a marker",
        }
        return f"{self.name}, {where[self.layout]}"

    def normalized(self, tags: Iterable[str], strict: bool = False) -> list[str]:
        """The tags as `B-PER`, which is how seqeval reads them. For `strict` scoring each run of a
        stray is written as an entity of the scheme."""
        written: list[str] = []
        for label, run in itertools.groupby(tags):
            n, (marker, kind) = len(list(run)), self.tags[label]
            markers = marker * n
            if strict and label in self.strays:
                markers = "B" + "I" * (n - 1)
                if self.name == "BIOES":
                    markers = "S" if n == 1 else f"{markers[:-1]}E"
            written += ["O" if m == "O" else f"{m}-{kind}" for m in markers]
        return written


def recognize_scheme(labels: Sequence[str]) -> TagScheme | None:
    """The scheme of a data set's tags; None where they do not mark entities, as parts of speech."""
    inside = [label for label in labels if label not in OUTSIDE]
    has_outside = len(inside) < len(labels)
    untyped = {label: (label, UNTYPED) for label in inside if label.upper() in MARKERS}
    markers = {label.upper() for label in untyped}
    whole = len(untyped) == len(inside) and has_outside and markers & set("BI")
    if whole or ("B" in markers and markers & set("IME") and 2 * len(untyped) >= len(inside)):
        return _scheme("untyped", untyped, labels)
    for layout, pattern in (("prefix", PREFIX), ("suffix", SUFFIX)):
        matches = {label: m.groups() for label in inside if (m := pattern.fullmatch(label))}
        pairs = {k: v if layout == "prefix" else v[::-1] for k, v in matches.items()}
        markers = {marker.upper() for marker, _ in pairs.values()}
        single = has_outside and len(pairs) == len(inside) and markers <= set("SUW")
        if pairs and (single or (markers & set("BI") and 2 * len(pairs) >= len(inside))):
            return _scheme(layout, pairs, labels)
    if has_outside and inside:
        return _scheme("type", {label: ("I", label) for label in inside}, labels)
    return None


def _scheme(layout: Any, pairs: dict[str, Any], labels: Sequence[str]) -> TagScheme:
    tags = {label: (MARKERS[marker.upper()], kind) for label, (marker, kind) in pairs.items()}
    markers = {marker for marker, _ in tags.values()}
    strays = tuple(label for label in labels if label not in tags and label not in OUTSIDE)
    tags |= dict.fromkeys((label for label in labels if label in OUTSIDE), ("O", ""))
    tags |= {label: ("I", label) for label in strays}
    name = "BIOES" if markers & {"E", "S"} else "BIO" if "B" in markers else "IO"
    return TagScheme(name, layout, tags, strays)


def entity_scores(
    scheme: TagScheme,
    gold: Sequence[Sequence[str]],
    predicted: Sequence[Sequence[str]],
    scoring: Scoring = "lenient",
) -> dict[str, float]:
    """`f1 precision recall` of the entities of all sentences, micro-averaged (0 without entities).

    An entity counts as found if its first word, its last word and its type agree.
    """
    from seqeval import metrics
    from seqeval.scheme import IOB2, IOBES

    options: dict[str, Any] = {}
    strict = scoring == "strict" and scheme.name != "IO"
    sides: Any = [[scheme.normalized(tags, strict) for tags in side] for side in (gold, predicted)]
    if strict:
        options = dict(mode="strict", scheme=IOBES if scheme.name == "BIOES" else IOB2)
    measures: dict[str, Any] = {
        "f1": metrics.f1_score,
        "precision": metrics.precision_score,
        "recall": metrics.recall_score,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # without entities they are 0
        return {name: float(measure(*sides, **options)) for name, measure in measures.items()}


def bare_beginnings(scheme: TagScheme, sentences: Iterable[Sequence[str]]) -> int:
    """How many entities begin with the marker I or E although the scheme has B (as in IOB1)."""
    if scheme.name == "IO":
        return 0
    count = 0
    for sentence in sentences:
        before = ("O", "")
        for name in sentence:
            tag = scheme.tags[name]
            opened = before[0] in "BI" and before[1] == tag[1]
            count += tag[0] in "IE" and not opened and name not in scheme.strays
            before = tag
    return count
