"""The section `distill`: a teacher, and what a run learns from it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from bert_jax.config.ranges import check_ranges


@dataclass(frozen=True)
class Distill:
    """Knowledge distillation (Hinton et al. 2015; for pre-training MiniLMv2, Wang et al. 2021)."""

    # Model that the run learns from: a run folder, imported folder, Hugging Face folder, or a name
    # on the Hub. None trains without a teacher.
    teacher: str | None = None
    # Weight of the teacher's terms in the loss. The true labels, or in pre-training the objective's
    # own losses, have 1 - weight.
    weight: float = 0.5
    # Temperature T by which the logits of teacher and student are divided. The loss is multiplied
    # by T^2, so that its gradient has the same size for every T. Numbers (regression) have none.
    temperature: float = 2.0
    # Pre-training: weight of the relations among the teacher's terms; 0 leaves them out.
    relation_weight: float = 1.0
    # Pre-training: weight of the logits of masked tokens among the teacher's terms; 0 leaves them
    # out. A teacher without a masked-LM head has none.
    logit_weight: float = 1.0
    # Pre-training: layer of the teacher, from 1, whose relations the student's last layer learns;
    # None means the last one. Negative numbers count from the end.
    teacher_layer: int | None = None
    # Pre-training: number of relation heads; it must divide both widths. None means the teacher's
    # attention heads.
    relation_heads: int | None = None
    # Hash of the teacher's parameters. A run sets it when it starts; do not set it.
    teacher_hash: str | None = None
    # Commit of `teacher`, if that is a name on the Hugging Face Hub. A run sets it when it starts;
    # do not set it.
    teacher_commit: str | None = None

    def __post_init__(self) -> None:
        heads, infinite = self.relation_heads, float("inf")
        checks = {
            "weight": (0 <= self.weight <= 1, "0 <= x <= 1"),
            "temperature": (0 < self.temperature < infinite, "above 0"),
            "relation_weight": (0 <= self.relation_weight < infinite, "at least 0"),
            "logit_weight": (0 <= self.logit_weight < infinite, "at least 0"),
            "teacher_layer": (self.teacher_layer != 0, "a layer from 1, or from the end from -1"),
            "relation_heads": (heads is None or heads >= 1, "at least 1"),
        }
        check_ranges("distill", self, checks)

    def check_unused(self) -> None:
        """ValueError: fields are set, and there is no teacher."""
        for field in dataclasses.fields(self) if self.teacher is None else ():
            if getattr(self, field.name) != field.default:
                raise ValueError(
                    f"distill.{field.name} is {getattr(self, field.name)}, but there is no "
                    "teacher: give --teacher MODEL, or leave it out"
                )
