"""What config.json says of long texts: our entry, which transformers does not know.

length                          tokens per row
stride                          pieces from one window of a context to the next, for questions
long, window_pool, max_windows  these fields of `objective`, unless `long` is truncate
"""

from __future__ import annotations

from bert_jax.config import Experiment, Supervised, from_dict, replace
from bert_jax.utils.types import Json

LONG_TEXTS = "long_texts"
LONG_FIELDS = ("long", "window_pool", "max_windows")
STRIDE = "stride"
# Tasks whose texts are cut to a row, unless `objective.long` says otherwise.
CUT_TEXTS = ("classification", "multilabel", "regression", "rerank")


def with_long_texts(objective: Supervised, hf: Json) -> Supervised:
    """The objective with what an export of ours says of long texts."""
    values = hf.get(LONG_TEXTS, {})
    known = isinstance(values, dict) and set(values) <= {*LONG_FIELDS, STRIDE, "length"}
    try:
        if not known:
            raise ValueError("unknown entries")
        fields = {name: values[name] for name in (*LONG_FIELDS, STRIDE) if name in values}
        checked = from_dict(Supervised, fields)
        return replace(objective, **{name: getattr(checked, name) for name in fields})
    except ValueError as e:
        raise ValueError(
            f"config.json has {LONG_TEXTS} {values!r:.80} ({e}): correct or remove the entry"
        ) from None


def with_row_length(experiment: Experiment, hf: Json) -> Experiment:
    """The experiment with the tokens per row that an export of ours was trained with. Others do not
    say it: all that the model takes where texts would be cut, else the default of the task."""
    values, task = hf.get(LONG_TEXTS), experiment.objective
    length = values.get("length") if isinstance(values, dict) else None
    if not isinstance(length, int) or length < 8:
        cut = isinstance(task, Supervised) and task.task_type in CUT_TEXTS
        length = experiment.encoder.max_length if cut else None
    return replace(experiment, data=dict(length=length))


def long_texts_to_hf(experiment: Experiment) -> tuple[Json, list[str]]:
    """What config.json keeps for an import of ours, and what transformers does not do."""
    task, length = experiment.objective, experiment.data.length
    if not isinstance(task, Supervised):
        return {}, []
    longest = experiment.encoder.max_length if task.task_type in CUT_TEXTS else None
    kept: Json = {} if length in (None, longest) else {"length": length}
    kept |= {} if task.stride is None else {STRIDE: task.stride}
    if task.long == "truncate":
        return {LONG_TEXTS: kept} if kept else {}, []
    kept |= {name: getattr(task, name) for name in LONG_FIELDS}
    return {LONG_TEXTS: kept}, [f"objective.long {task.long}, rows of {length} tokens"]
