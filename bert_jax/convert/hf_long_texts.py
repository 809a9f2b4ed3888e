"""What config.json says of long texts: our entry, which transformers does not know."""

from __future__ import annotations

from bert_jax.config import Experiment, Supervised, from_dict, replace
from bert_jax.utils.types import Json

LONG_TEXTS = "long_texts"
LONG_FIELDS = ("long", "window_pool", "max_windows")


def with_long_texts(objective: Supervised, hf: Json) -> Supervised:
    """The objective with what an export of ours says of long texts."""
    values = hf.get(LONG_TEXTS, {})
    known = isinstance(values, dict) and set(values) <= {*LONG_FIELDS, "length"}
    try:
        if not known:
            raise ValueError("unknown entries")
        fields = {name: values[name] for name in LONG_FIELDS if name in values}
        checked = from_dict(Supervised, fields)
        return replace(objective, **{name: getattr(checked, name) for name in fields})
    except ValueError as e:
        raise ValueError(
            f"config.json has {LONG_TEXTS} {values!r:.80} ({e}): correct or remove the entry"
        ) from None


def row_length(hf: Json) -> int | None:
    """The tokens per row that an export of ours was trained with; None if it does not say."""
    values = hf.get(LONG_TEXTS)
    length = values.get("length") if isinstance(values, dict) else None
    return length if isinstance(length, int) and length >= 8 else None


def long_texts_to_hf(experiment: Experiment) -> tuple[Json, list[str]]:
    """What config.json keeps of `objective.long`, for an import of ours, and what transformers does
    not do."""
    task, length = experiment.objective, experiment.data.length
    if isinstance(task, Supervised) and task.task_type == "rerank" and length is not None:
        return {LONG_TEXTS: {"length": length}}, []
    if not isinstance(task, Supervised) or task.long == "truncate":
        return {}, []
    fields = {name: getattr(task, name) for name in LONG_FIELDS}
    kept = fields if length is None else {**fields, "length": length}
    return {LONG_TEXTS: kept}, [f"objective.long {task.long}, rows of {length} tokens"]
