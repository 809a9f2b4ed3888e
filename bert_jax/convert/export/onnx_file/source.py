"""What an ONNX file is made from: one network, and one of its heads."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, get_args

import jax
import numpy as np

from bert_jax import convert
from bert_jax.config import Contrastive, Encoder, Supervised
from bert_jax.convert.export.files import ExportableModel
from bert_jax.convert.sentence_head import SentenceHead

Head = Literal["encoder", "sentence", "mlm", "rtd", "pair", "task"]


class Source(NamedTuple):
    """What a graph is made from."""

    encoder: Encoder
    params: Any  # NumPy
    head: Head
    task: Supervised | None
    sentence: SentenceHead

    @property
    def parts(self) -> set[str]:
        """The parts of the parameters that the file has."""
        names = {"embeddings", "encoder", self.head}
        if self.head == "task":
            names |= set(convert.head_modules((), self.task))
        elif self.head in ("encoder", "pair"):
            names.add("pooler")
        return names & set(self.params)

    @property
    def used_task(self) -> Supervised | None:
        """The task of the head; None for a head of pre-training and for none, which a fine-tuned
        model can be exported with, too."""
        return self.task if self.head == "task" else None

    @property
    def is_choice(self) -> bool:
        return self.used_task is not None and self.used_task.task_type == "choice"

    @property
    def is_joint(self) -> bool:
        return self.used_task is not None and self.used_task.span == "joint"

    @property
    def has_types(self) -> bool:
        return self.encoder.token_types > 1 or self.is_joint


def select_source(model: ExportableModel, part: str | None, head: str | None) -> Source:
    """The network and the head that an export is made from.

    ValueError: a head that the model does not have.
    """
    encoder, _, params = convert.select_network(model.config, model.params, part)
    params = jax.tree.map(np.asarray, params)
    task = model.config.objective if isinstance(model.config.objective, Supervised) else None
    params = convert.rescale_label_head(params, task)
    has = {"encoder": True, "sentence": True, "task": task is not None}
    available = [name for name in get_args(Head) if has.get(name, name in params)]
    if head is None:
        vectors = model.sentence is not None or isinstance(model.config.objective, Contrastive)
        order = ["sentence"] if vectors else ["task", "mlm", "rtd", "encoder"]
        head = next(name for name in order if name in available)
    if head not in available:
        raise ValueError(f"--head is {head}: expected one of the model's, {', '.join(available)}")
    chosen: Head = head  # type: ignore[assignment]
    return Source(encoder, params, chosen, task, model.sentence or SentenceHead())
