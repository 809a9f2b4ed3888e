"""Tensors under their names and our tree of parameters, both ways. NumPy on both sides."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from bert_jax.config import Encoder, Experiment, ReplacedTokens, Supervised, replace
from bert_jax.convert import hf_config, hf_tasks
from bert_jax.convert.heads import HEADS, head_modules, param_shapes
from bert_jax.convert.hf_name_rules import ALBERT, Family, NameTable, ParamRule, param_rules
from bert_jax.model import electra
from bert_jax.utils.pytree import flatten_with_names
from bert_jax.utils.types import Json, Params

Tensors = dict[str, np.ndarray]

IGNORED_BUFFERS = (".position_ids", ".token_type_ids")  # counted by the module, not learned
TOKEN_TYPE_TABLE = "embeddings.token_type_embeddings.weight"
OLD_NAMES = {".gamma": ".weight", ".beta": ".bias"}  # layer norms in files from 2018


class HfModel(NamedTuple):
    """A model in their terms."""

    config: Json
    tensors: Tensors
    left_out: list[str]  # our leaves that their class has no place for


# ---- theirs to ours


def from_hf(
    hf: Json,
    tensors: Mapping[str, np.ndarray],
    drop: Collection[str] = (),
    absent: Collection[str] = (),
) -> tuple[Experiment, Params]:
    """A config.json and its tensors as an experiment and its parameters, float32.

    The heads are those that have tensors. `drop` names tensors, or beginnings of their names,
    that are passed over; `absent` names heads that may be missing although the class in the
    config.json has them. Every other tensor must be used exactly once: what is missing,
    unexpected, of a wrong shape or not a number is listed in one ValueError.
    """
    family, encoder = hf_config.family_from_hf_config(hf), hf_config.encoder_from_hf_config(hf)
    found, problems = _named(family, tensors, tuple(drop))
    task = hf_tasks.task_from_hf_config(family, hf, drop)
    if task is None:
        heads = heads_with_tensors(family, found)
        heads |= set(hf_config.required_heads(family, hf)) - set(absent)
        table = family.head_table(heads)
    else:
        heads, table = set[str](), hf_tasks.task_table(family, task)
        found = _without_idle_pooler(family, found, table)
    if encoder.num_groups > len(found):  # before anything is made for each of them
        raise ValueError(
            f"config.json has num_hidden_layers {encoder.layers}, but there are only "
            f"{len(found)} tensors: these two files do not belong together"
        )
    _refuse_activation(family, encoder, heads)
    found, encoder = _without_zero_types(family, found, encoder)
    found = _without_identity(family, found, encoder)

    shapes = flatten_with_names(param_shapes(encoder, heads, task))
    flat: dict[str, np.ndarray] = {}
    for rule in param_rules(family, table, "encoder/projection/bias" in shapes):
        if rule.native not in shapes:  # the type table that was all zeros
            continue
        wanted = shapes[rule.native].shape
        parts = [
            _take(rule, name, wanted, found, problems) for name in rule.hf_names(encoder.num_groups)
        ]
        if all(p is not None for p in parts):
            flat[rule.native] = np.stack(parts) if rule.stacked else parts[0]  # type: ignore[arg-type]
    problems += [f"unexpected {name} {list(found[name].shape)}" for name in sorted(found)]
    if problems:
        raise ValueError(_listed(family, problems))
    return hf_config.build_experiment(family, encoder, heads, task), nest(flat)


def _named(
    family: Family, tensors: Mapping[str, np.ndarray], drop: tuple[str, ...]
) -> tuple[Tensors, list[str]]:
    """The tensors under their full, present-day names, each once; and what is wrong with them."""
    found: Tensors = {}
    problems = []
    for given, name in full_names(family, tensors, drop).items():
        if name in found:
            problems.append(f"twice {name}")
        found[name] = tensors[given]
    for second, first in family.tied.items():
        array = found.pop(second, None)
        if array is not None and not np.array_equal(found.setdefault(first, array), array):
            problems.append(f"not tied {second}: it differs from {first}")
    return found, problems


def full_names(
    family: Family, names: Collection[str], drop: tuple[str, ...] = ()
) -> dict[str, str]:
    """Name in a file -> the name that it has in the fullest of today's classes."""
    bare = not any(name.startswith(family.prefix) for name in names)
    roots = tuple(
        name.removeprefix(family.prefix).split(".")[0] + "."
        for name in [*family.encoder_table(True), *family.heads.get("pooler", ())]
    )
    out = {}
    for given in names:
        if given.endswith(IGNORED_BUFFERS) or (drop and given.startswith(drop)):
            continue
        name = f"{family.prefix}{given}" if bare and given.startswith(roots) else given
        for old, new in OLD_NAMES.items():
            name = name.removesuffix(old) + new if name.endswith(old) else name
        out[given] = name
    return out


def heads_with_tensors(family: Family, names: Collection[str]) -> set[str]:
    """The heads that have tensors of these full names."""

    def any_under(table: Mapping[str, str]) -> bool:
        return any(name == at or name.startswith(f"{at}.") for name in names for at in table)

    return {h for h, table in family.heads.items() if any_under(table)}


def _take(
    rule: ParamRule, name: str, ours: tuple[int, ...], found: Tensors, problems: list[str]
) -> np.ndarray | None:
    """One tensor as a leaf, or as one layer's share of it; what is wrong is noted."""
    wanted = ours[1:] if rule.stacked else ours
    wanted = wanted[::-1] if rule.transpose else wanted
    array = found.pop(name, None)
    if array is None:
        problems.append(f"missing {name} {list(wanted)}")
    elif array.shape != wanted:
        problems.append(f"wrong shape {name} {list(array.shape)}, expected {list(wanted)}")
    elif not jnp.issubdtype(array.dtype, jnp.floating):
        problems.append(f"wrong type {name} {array.dtype}, expected floating point")
    elif not np.isfinite(array.astype(np.float32)).all():
        problems.append(f"not finite {name}")
    else:
        array = array.astype(np.float32)
        return np.ascontiguousarray(array.T) if rule.transpose else array
    return None


def _listed(family: Family, problems: list[str]) -> str:
    shown = "; ".join(problems[:40])
    more = f"; and {len(problems) - 40} more" if len(problems) > 40 else ""
    hint = " (tensors that are not needed can be passed over: --drop NAME)" * any(
        p.startswith("unexpected") for p in problems
    )
    return f"the tensors do not fit a {family.name} of this config.json: {shown}{more}{hint}"


def _refuse_activation(family: Family, encoder: Encoder, heads: Collection[str]) -> None:
    fixed = [h for h in family.activation_fixed if h in heads]
    if fixed and encoder.activation != "gelu":
        raise ValueError(
            f"config.json has hidden_act {encoder.activation} for a {family.name} with a "
            f"masked-word head, which always uses gelu: expected gelu, or drop the head's tensors"
        )


def _without_zero_types(
    family: Family, found: Tensors, encoder: Encoder
) -> tuple[Tensors, Encoder]:
    """RoBERTa has no token types; theirs keeps a single row of zeros in their place. A row
    that is not zero stays as a table of one."""
    name = f"{family.prefix}{TOKEN_TYPE_TABLE}"
    table = found.get(name)
    if table is None or table.shape != (1, encoder.embedding_width) or table.any():
        return found, encoder
    return {k: v for k, v in found.items() if k != name}, replace(encoder, token_types=0)


def _without_idle_pooler(family: Family, found: Tensors, table: NameTable) -> Tensors:
    """Models for spans and tags were often saved with the pooler that they began with, and
    that nothing reads."""
    idle = tuple(f"{at}." for at in family.heads.get("pooler", ()) if at not in table)
    return {k: v for k, v in found.items() if not (idle and k.startswith(idle))}


def _without_identity(family: Family, found: Tensors, encoder: Encoder) -> Tensors:
    """Their ALBERT projects even between equal widths, where we do not: the identity, which
    is what `to_hf` writes there, may go."""
    name = f"{family.prefix}{family.projection}"
    if family is not ALBERT or encoder.embedding_width != encoder.hidden_size:
        return found
    weight, bias = found.get(f"{name}.weight"), found.get(f"{name}.bias")
    if weight is None or bias is None or bias.any():
        return found
    if not np.array_equal(weight, np.eye(encoder.hidden_size)):
        return found
    return {k: v for k, v in found.items() if not k.startswith(f"{name}.")}


# ---- ours to theirs


def to_hf(experiment: Experiment, params: Params, part: str | None = None) -> HfModel:
    """An experiment's parameters as a config.json and tensors, in the class of theirs that
    holds most of its heads. `part` is ELECTRA's `discriminator` (unless said) or `generator`.

    Layers that share parameters in a way theirs cannot are written out, each on its own.
    ValueError: no architecture of theirs computes this, or a part that is not there.
    """
    encoder, heads, tower = select_network(experiment, params, part)
    task = experiment.objective
    family = hf_config.hf_family(encoder, task)
    if isinstance(task, Supervised):
        name, table, tower, more = hf_tasks.task_to_hf(family, encoder, task, tower)
    else:
        name, heads = family.fullest_class(heads)
        table, more = family.head_table(heads), {}
    written = hf_config.encoder_to_hf_config(family, encoder, name, heads) | more
    leaves = _layers_apart(
        family, encoder, {k: np.asarray(v) for k, v in flatten_with_names(tower).items()}
    )
    leaves |= {k: v for k, v in _their_fillers(family, encoder).items() if k not in leaves}
    tensors: Tensors = {}
    for rule in param_rules(family, table, "encoder/projection/kernel" in leaves):
        leaf = leaves.pop(rule.native)
        parts = list(leaf) if rule.stacked else [leaf]
        for theirs, one in zip(rule.hf_names(len(parts)), parts, strict=True):
            theirs = theirs.removeprefix(family.prefix) if name.endswith("Model") else theirs
            tensors[theirs] = np.ascontiguousarray(one.T if rule.transpose else one)
    return HfModel(written, tensors, sorted(leaves))


def select_network(
    experiment: Experiment, params: Params, part: str | None
) -> tuple[Encoder, set[str], Params]:
    """The encoder, the heads that theirs may have too, and the parameters of one network."""
    encoder, objective = experiment.encoder, experiment.objective
    if part not in (None, "discriminator", "generator"):
        raise ValueError(f"part is {part!r}: expected discriminator or generator")
    if isinstance(objective, ReplacedTokens):
        part = part or "discriminator"
        tower = electra.merge_tower(params, part)
        if part == "generator":
            encoder = objective.generator(encoder)
        return encoder, {"mlm", "rtd"} & set(tower), tower
    if part is not None:
        raise ValueError(f"part is {part}: only an ELECTRA with both its towers has parts")
    if isinstance(objective, Supervised):
        return encoder, set(head_modules((), objective)), params
    return encoder, set(HEADS) & set(params), params


def _layers_apart(family: Family, encoder: Encoder, leaves: Tensors) -> Tensors:
    """Stacked leaves with one entry on axis 0 for each set of parameters that theirs has:
    ALBERT's groups, or every layer."""
    if encoder.share_params == "all" and (family is ALBERT or encoder.num_groups == encoder.layers):
        return leaves
    out = {}
    for name, leaf in leaves.items():
        if name.startswith("encoder/layers/own/"):
            rest = name.removeprefix("encoder/layers/own/")
            part = "mlp" if encoder.share_params == "attention" else "attention"
            name, leaf = f"encoder/layers/{part}/{rest}", leaf.reshape(-1, *leaf.shape[2:])
        elif name.startswith("encoder/layers/"):
            leaf = leaf.repeat(encoder.layers // encoder.num_groups, axis=0)
        out[name] = leaf
    return out


def _their_fillers(family: Family, encoder: Encoder) -> Tensors:
    """What theirs always has and we leave out, at the values that change nothing."""
    d, e = encoder.hidden_size, encoder.embedding_width
    fillers: Tensors = {"embeddings/type": np.zeros((1, e), np.float32)}
    if family is ALBERT:
        fillers["encoder/projection/kernel"] = np.eye(d, dtype=np.float32)
        fillers["encoder/projection/bias"] = np.zeros(d, np.float32)
    return fillers


def nest(flat: Mapping[str, Any]) -> Params:
    """Names joined by slashes as nested dicts."""
    tree: Params = {}
    for name, leaf in flat.items():
        *way, last = name.split("/")
        at = tree
        for key in way:
            at = at.setdefault(key, {})
        at[last] = leaf
    return tree
