"""Hugging Face tensors to native parameters (`from_hf`) and back (`to_hf`), in NumPy."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from bert_jax.config import Encoder, Experiment, ReplacedTokens, Supervised, replace
from bert_jax.convert import hf_config, hf_long_texts, hf_tasks
from bert_jax.convert.heads import HEADS, head_modules, param_shapes
from bert_jax.convert.hf_layout import (
    Tensors,
    as_imported,
    half_precision,
    neutral_params,
    refuse_projection,
    unshare_layers,
    without_identity,
    without_zero_types,
)
from bert_jax.convert.hf_name_rules import Family, NameTable, ParamRule, full_names, param_rules
from bert_jax.model import electra
from bert_jax.utils.pytree import flatten_with_names, is_stacked
from bert_jax.utils.types import Json, Params


class HfModel(NamedTuple):
    """A model in Hugging Face's format."""

    config: Json
    tensors: Tensors
    left_out: list[str]  # native parameters that the class does not have


# ---- Hugging Face to native


def from_hf(
    hf: Json,
    tensors: Mapping[str, np.ndarray],
    drop: Collection[str] = (),
    absent: Collection[str] = (),
    drop_all: bool = True,
) -> tuple[Experiment, Params]:
    """A config.json and its tensors as an experiment and its parameters, float32.

    The model gets the heads that have tensors.

    drop     names of tensors to ignore, or prefixes of names; a head of which nothing is left is
             not needed
    absent   heads that may be missing although the class in the config.json has them
    drop_all whether every prefix in `drop` must be that of a name

    ValueError: lists all tensors that are missing, unexpected, not finite, or of a wrong shape; a
    prefix in `drop` with which no name begins.
    """
    if drop_all:
        _check_drop(drop, tensors)
    family, encoder = hf_config.family_from_hf_config(hf), hf_config.encoder_from_hf_config(hf)
    if family.is_bare(tensors):
        hf = {**hf, "architectures": None}
    refuse_projection(family, tensors, encoder)  # also with --drop: it would change the outputs
    named, problems = _rename_tensors(family, tensors, tuple(drop))
    task = hf_tasks.task_from_hf_config(family, hf, drop)
    if task is None:
        heads = _heads(family, hf, named, drop, absent)
        table = family.head_table(heads)
    else:
        heads, table = set[str](), hf_tasks.task_table(family, task)
        named = _without_unused_pooler(family, named, table)
    if encoder.num_groups > len(named):  # checked before allocating anything per layer
        raise ValueError(
            f"config.json has num_hidden_layers {encoder.layers}, but there are only "
            f"{len(named)} tensors: these two files do not belong together"
        )
    _refuse_activation(family, encoder, heads)
    named, encoder = without_zero_types(family, named, encoder)
    named = without_identity(family, named, encoder)

    shapes = flatten_with_names(param_shapes(encoder, heads, task))
    flat: dict[str, np.ndarray] = {}
    for rule in param_rules(family, table, "encoder/projection/bias" in shapes):
        if rule.natives[0] not in shapes:  # no biases, or a token-type table of zeros
            continue
        native_shapes = [shapes[native].shape for native in rule.natives]
        names = rule.hf_names(encoder.num_groups, encoder)
        parts = [_take_tensor(rule, name, native_shapes, named, problems) for name in names]
        if all(p is not None for p in parts):
            for i, native in enumerate(rule.natives):
                arrays = [part[i] for part in parts]  # type: ignore[index]
                flat[native] = np.stack(arrays) if rule.stacked else arrays[0]
    problems += [f"unexpected {name} {list(named[name].shape)}" for name in sorted(named)]
    if problems:
        raise ValueError(_problem_list(family, problems))
    experiment = hf_config.build_experiment(family, encoder, heads, task)
    experiment = hf_long_texts.with_row_length(experiment, hf)
    if (dtype := half_precision(tensors)) is not None:
        experiment = replace(experiment, run=dict(imported_dtype=dtype))
    return experiment, traverse_util.unflatten_dict(flat, sep="/")


def _check_drop(drop: Collection[str], names: Collection[str]) -> None:
    """ValueError: a prefix with which no tensor's name begins."""
    for prefix in drop:
        if not any(name.startswith(prefix) for name in names):
            known = ", ".join(sorted({name.split(".")[0] for name in names})[:9])
            raise ValueError(
                f"--drop has {prefix!r}, with which no tensor's name begins: names begin with "
                f"{known}"
            )


def _heads(
    family: Family, hf: Json, names: Collection[str], drop: Collection[str], absent: Collection[str]
) -> set[str]:
    """The heads with tensors among these full names, and those that the class must have."""
    heads = heads_with_tensors(family, names)
    heads |= {
        head
        for head in hf_config.required_heads(family, hf)
        if head not in absent and not hf_tasks.all_dropped(family.heads[head], tuple(drop))
    }
    if "pair" in heads and "pooler" not in absent:  # which it reads
        heads.add("pooler")
    return heads


def _rename_tensors(
    family: Family, tensors: Mapping[str, np.ndarray], drop: tuple[str, ...]
) -> tuple[Tensors, list[str]]:
    """The tensors by their full current names, and problems such as duplicates."""
    named: Tensors = {}
    problems = []
    for original, name in full_names(family, tensors, drop).items():
        if name in named:
            problems.append(f"twice {name}")
        named[name] = tensors[original]
    for second, first in (family.tied | family.old_tied).items():
        array = named.pop(second, None)
        if array is not None and not np.array_equal(named.setdefault(first, array), array):
            problems.append(f"not tied {second}: it differs from {first}")
    return named, problems


def heads_with_tensors(family: Family, names: Collection[str]) -> set[str]:
    """The heads that have tensors among these full names."""

    def any_under(table: Mapping[str, str]) -> bool:
        return any(
            name == module or name.startswith(f"{module}.") for name in names for module in table
        )

    return {h for h, table in family.heads.items() if any_under(table)}


def _take_tensor(
    rule: ParamRule,
    name: str,
    native_shapes: Sequence[tuple[int, ...]],
    named: Tensors,
    problems: list[str],
) -> list[np.ndarray] | None:
    """Remove a tensor from `named` and return the native parameters in it, or one layer's parts of
    stacked parameters. Problems are appended."""
    *inner, width = native_shapes[0][1:] if rule.stacked else native_shapes[0]
    shape = (*inner, width * len(native_shapes))
    shape = shape[::-1] if rule.transpose else shape
    array = named.pop(name, None)
    if array is None:
        problems.append(f"missing {name} {list(shape)}")
    elif array.shape != shape:
        problems.append(f"wrong shape {name} {list(array.shape)}, expected {list(shape)}")
    elif not jnp.issubdtype(array.dtype, jnp.floating):
        problems.append(f"wrong type {name} {array.dtype}, expected floating point")
    elif not np.isfinite(array.astype(np.float32)).all():
        problems.append(f"not finite {name}")
    else:
        array = array.astype(np.float32)
        array = array.T if rule.transpose else array
        parts = np.split(array, len(native_shapes), axis=-1)
        return [np.ascontiguousarray(part) for part in parts]
    return None


def _problem_list(family: Family, problems: list[str]) -> str:
    shown = "; ".join(problems[:40])
    more = f"; and {len(problems) - 40} more" if len(problems) > 40 else ""
    hint = " (ignore tensors that are not needed with --drop NAME)" * any(
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


def _without_unused_pooler(family: Family, tensors: Tensors, table: NameTable) -> Tensors:
    """Models for spans and tags were often saved with their pretrained pooler, which is unused."""
    poolers = family.heads.get("pooler", ())
    unused = tuple(f"{module}." for module in poolers if module not in table)
    return {k: v for k, v in tensors.items() if not (unused and k.startswith(unused))}


# ---- native to Hugging Face


def to_hf(experiment: Experiment, params: Params, part: str | None = None) -> HfModel:
    """An experiment's parameters as a config.json and tensors, in the Hugging Face class that has
    the most of its heads. `part` is ELECTRA's `discriminator` (the default) or `generator`.

    Layers that share parameters in a way that Hugging Face cannot express are written separately.
    ValueError: no Hugging Face architecture computes the same, or the model has no such part.
    """
    encoder, heads, network = select_network(experiment, params, part)
    task = experiment.objective
    family = hf_config.hf_family(encoder, task)
    if isinstance(task, Supervised):
        name, table, network, head_config = hf_tasks.task_to_hf(family, encoder, task, network)
    else:
        name, heads = family.fullest_class(heads)
        table, head_config = family.head_table(heads), {}
    config_json = hf_config.encoder_to_hf_config(family, encoder, name, heads) | head_config
    leaves = {k: np.asarray(v) for k, v in flatten_with_names(network).items()}
    leaves = unshare_layers(family, encoder, leaves)
    leaves |= {k: v for k, v in neutral_params(family, encoder).items() if k not in leaves}
    tensors: Tensors = {}
    sets = max(len(leaf) for name, leaf in leaves.items() if is_stacked(name))
    for rule in param_rules(family, table, "encoder/projection/kernel" in leaves):
        if rule.natives[0] not in leaves:  # this network has no such bias
            continue
        joined = [leaves.pop(native) for native in rule.natives]
        leaf = joined[0] if len(joined) == 1 else np.concatenate(joined, axis=-1)
        parts = list(leaf) if rule.stacked else [leaf]
        names = rule.hf_names(sets, encoder)
        for hf_name, array in zip(names, parts, strict=True):
            hf_name = hf_name.removeprefix(family.prefix) if name.endswith("Model") else hf_name
            tensors[hf_name] = np.ascontiguousarray(array.T if rule.transpose else array)
    lost = hf_config.lost_dropout_rates(family, encoder)
    long_texts, lost_options = hf_long_texts.long_texts_to_hf(experiment)
    config_json, lost = config_json | long_texts, [*lost, *lost_options]
    tensors, config_json["dtype"] = as_imported(tensors, experiment.run.imported_dtype)
    return HfModel(config_json, tensors, [*sorted(leaves), *lost])


def select_network(
    experiment: Experiment, params: Params, part: str | None
) -> tuple[Encoder, set[str], Params]:
    """The encoder, heads and parameters of one network; `part` selects one of ELECTRA's two."""
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
        raise ValueError(
            f"part is {part}: only an ELECTRA with discriminator and generator has parts"
        )
    if isinstance(objective, Supervised):
        return encoder, set(head_modules((), objective)), params
    return encoder, set(HEADS) & set(params), params
