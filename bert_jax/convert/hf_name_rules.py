"""Hugging Face names and native names: one table per family, used in both directions.

A table maps the names of modules, hf to native. The names decide what an entry means:

    hf.weight  hf.bias   <->   native/kernel (transposed)  native/bias       a dense layer
    hf.weight  hf.bias   <->   a/kernel b/kernel  a/bias b/bias    "a b": dense layers side by side
    hf.weight  hf.bias   <->   native/scale  native/bias         native ends in `norm`
    hf                   <->   native                            hf ends in `weight` or `bias`

PyTorch keeps a dense layer's weight as (out, in), we keep it as (in, out). `{i}` counts the sets
of layer parameters: separate tensors in Hugging Face, stacked on axis 0 here. A rule whose native
parameters the network lacks (biases, token types) does not apply. The tables are in hf_families.py.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from bert_jax.config import Encoder, ModelType, TaskType

NameTable = dict[str, str]

FIRST_NORM = "encoder/layers/attention/norm/"  # of layer 0 only if `Encoder.first_norm`
IGNORED_BUFFERS = (".position_ids", ".token_type_ids")  # not learned
OLD_NAMES = {".gamma": ".weight", ".beta": ".bias"}  # layer norms in checkpoints from 2018


class TaskClass(NamedTuple):
    """A Hugging Face class for fine-tuning, and the names of its head."""

    name: str
    table: NameTable


@dataclass(frozen=True)
class Family:
    """A Hugging Face model type: its classes, and the names of its encoder and heads."""

    name: ModelType
    classes: dict[str, tuple[str, ...]]  # class -> its heads, most heads first
    projection: str  # name of the embedding projection; "": there is none
    embeddings: NameTable
    layers: NameTable
    heads: dict[str, NameTable]
    tied: NameTable  # second name of a tied tensor -> first name
    tasks: dict[TaskType, TaskClass]  # regression uses the class of classification
    prefix: str  # of the encoder's tensors in every class except the bare model
    activation_fixed: tuple[str, ...] = ()  # heads that use the erf GELU whatever the config says
    old_tied: NameTable = field(default_factory=dict)  # as `tied`, of old versions

    def is_bare(self, names: Collection[str]) -> bool:
        """Whether these are names of the bare model's tensors, whatever class a config names:
        sentence-transformers keeps the class of the model that it began with."""
        return not any(name.startswith(self.prefix) for name in names)

    def encoder_table(self, projected: bool) -> NameTable:
        """The names of the encoder, with those of the embedding projection if it is `projected`."""
        table = self.embeddings | ({self.projection: "encoder/projection"} if projected else {})
        return {f"{self.prefix}{hf}": native for hf, native in (table | self.layers).items()}

    @property
    def types_table(self) -> str | None:
        """The full name of the token-type table; None: the family has none."""
        names = (hf for hf, native in self.embeddings.items() if native == "embeddings/type")
        return next((f"{self.prefix}{name}" for name in names), None)

    def fullest_class(self, heads: Collection[str]) -> tuple[str, tuple[str, ...]]:
        """The class with the most of these heads and no others, and its heads. In the bare model
        a pooler is optional."""
        name, class_heads = next(c for c in self.classes.items() if set(c[1]) <= set(heads))
        optional = (h for h in ("pooler",) if h in heads and h in self.heads)
        return name, class_heads or tuple(optional)

    def head_table(self, heads: Collection[str]) -> NameTable:
        """The names of these pre-training heads, in the family's order."""
        tables = (table for head, table in self.heads.items() if head in heads)
        return {hf: native for table in tables for hf, native in table.items()}


class ParamRule(NamedTuple):
    """A Hugging Face tensor or, with `{i}`, one per layer, and the native parameters in it: one, or
    several that are concatenated along the output axis."""

    hf: str
    natives: tuple[str, ...]
    transpose: bool

    @property
    def stacked(self) -> bool:
        """Whether the native parameters stack the tensors of all groups."""
        return "{i}" in self.hf

    def hf_names(self, num_groups: int, encoder: Encoder) -> list[str]:
        """The names of its tensors in a model of `num_groups` groups."""
        if not self.stacked:
            return [self.hf]
        first = 1 if self.natives[0].startswith(FIRST_NORM) and not encoder.first_norm else 0
        return [self.hf.format(i=i) for i in range(first, num_groups)]


def param_rules(family: Family, heads: NameTable, projected: bool) -> Iterator[ParamRule]:
    """The rules of the encoder and of a table of heads."""
    for hf, native in (family.encoder_table(projected) | heads).items():
        if hf.endswith((".weight", ".bias")):
            yield ParamRule(hf, (native,), False)
            continue
        norm, names = native.endswith("norm"), native.split()
        leaf = "scale" if norm else "kernel"
        yield ParamRule(f"{hf}.weight", tuple(f"{name}/{leaf}" for name in names), not norm)
        yield ParamRule(f"{hf}.bias", tuple(f"{name}/bias" for name in names), False)


def full_names(
    family: Family, names: Collection[str], drop: tuple[str, ...] = ()
) -> dict[str, str]:
    """Name in a file -> name in the current class with the most heads."""
    bare = family.is_bare(names)
    roots = tuple(
        name.removeprefix(family.prefix).split(".")[0] + "."
        for name in [*family.encoder_table(True), *family.heads.get("pooler", ())]
    )
    out = {}
    for original in names:
        if original.endswith(IGNORED_BUFFERS) or (drop and original.startswith(drop)):
            continue
        name = f"{family.prefix}{original}" if bare and original.startswith(roots) else original
        for old, new in OLD_NAMES.items():
            name = name.removesuffix(old) + new if name.endswith(old) else name
        out[original] = name
    return out
