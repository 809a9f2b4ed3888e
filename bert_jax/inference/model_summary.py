"""What a model is and can do, as a table for notebooks."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

from bert_jax import convert
from bert_jax.config import Contrastive, Supervised
from bert_jax.utils import pytree

if TYPE_CHECKING:
    from bert_jax.inference.model import Model


def summary(model: Model) -> dict[str, str]:
    """Rows of a table: name -> value."""
    c, e = model.config, model.config.encoder
    shared = "" if e.num_groups == e.layers else f", {e.num_groups} sets of parameters"
    rows = {
        "family": _family(model),
        "parameters": f"{pytree.count(model.params):,}",
        "layers": f"{e.layers}{shared}, width {e.hidden_size}, {e.heads} heads",
        "vocabulary": f"{e.vocab_size:,} pieces",
        "maximum length": f"{e.max_length} tokens",
    }
    if c.run.init_commit is not None and not model.step:
        rows["from"] = f"{c.run.init}, commit {c.run.init_commit[:8]}"
    elif model.folder is not None:
        rows["from"] = str(model.folder)
    if model.step:
        rows["trained"] = f"{model.step:,} of {c.run.steps:,} steps"
    if isinstance(c.objective, Supervised) and c.objective.labels:
        labels = c.objective.labels
        more = f", ... ({len(labels)} in all)" if len(labels) > 10 else ""
        rows["labels"] = ", ".join(labels[:10]) + more
    return rows | {"can": ", ".join(_abilities(model))}


def as_html(model: Model) -> str:
    """`summary` as an HTML table."""
    rows = "".join(
        f'<tr><th style="text-align:left">{html.escape(name)}</th>'
        f'<td style="text-align:left">{html.escape(value)}</td></tr>'
        for name, value in summary(model).items()
    )
    return f"<table><caption>bert_jax model</caption><tbody>{rows}</tbody></table>"


def _family(model: Model) -> str:
    """The name of the family; of a network that no Hugging Face class computes, that of its
    objective."""
    c = model.config
    try:
        return convert.hf_family(c.encoder, c.objective).name
    except ValueError:
        return getattr(c.objective, "family", type(c.objective).__name__)


def _abilities(model: Model) -> list[str]:
    """The methods that work with this model."""
    objective = model.config.objective
    names = ["encode()", "similarity()"]
    if model.fills_masks:
        names.append("fill()")
    if isinstance(objective, Supervised):
        names.append(f"predict(): {objective.task}")
    if model.sentence is not None or isinstance(objective, Contrastive):
        names[0] = "encode(): sentence vectors"
    return names
