"""Pre-training with a teacher: a masked language model that also learns from a second network.

    relation_loss   self-attention relations of one layer of the teacher (relations.py), which the
                    student's last layer learns
    logit_loss      the teacher's logits of the masked tokens, softened (distillation.py)

Both networks read the same masked rows. The teacher has no dropout and takes no gradient; its
parameters are an argument of the step (`with_teacher`), beside the state and not in it.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import jax

from bert_jax.config import Distill
from bert_jax.data.vocabulary import Vocabulary
from bert_jax.model import Network
from bert_jax.model.encoder import encoder_inputs
from bert_jax.model.heads import LMHeadOutput
from bert_jax.objectives import relations
from bert_jax.objectives.base import Objective, Terms, apply_network, token_weights, with_heads
from bert_jax.objectives.distillation import softened_kl
from bert_jax.objectives.losses import Mean, in_chunks, weighted_mean
from bert_jax.objectives.masked_lm import MaskedObjective
from bert_jax.utils.types import Batch, Params


@dataclass(frozen=True)
class TeacherNetwork:
    """What a student learns from: a network, one of its layers, and a number of relation heads."""

    objective: Objective  # the teacher's own, for `init` and for its network
    network: Network  # returns layers or masked-word logits, as far as they are learned
    layer: int  # from 1
    relation_heads: int

    def init(self, key: jax.Array) -> Params:
        """Random parameters of the network, for their shapes."""
        return self.network_params(self.objective.init(key))

    def network_params(self, params: Params) -> Params:
        """The network's parameters among those of the teacher's objective: the embeddings, the
        encoder, and the masked-word head where it is learned from."""
        own = self.objective.encoder(params)[1]
        return {k: own[k] for k in ("embeddings", "encoder", *self.network.heads)}


@dataclass(frozen=True)
class DistilledObjective:
    """A student's objective, and the terms of its teacher."""

    student: MaskedObjective
    teacher: TeacherNetwork
    distill: Distill
    teacher_params: Any = None  # arrays of the step; None outside of it

    def with_teacher(self, params: Any) -> DistilledObjective:
        """This objective with the teacher's parameters."""
        return dataclasses.replace(self, teacher_params=params)

    @property
    def vocabulary(self) -> Vocabulary | None:
        """What masking needs to know about the tokenizer."""
        return self.student.vocabulary

    @property
    def learns_relations(self) -> bool:
        """Whether the student learns the teacher's relations."""
        return self.teacher.network.return_layers

    @property
    def learns_logits(self) -> bool:
        """Whether the student learns the teacher's logits of masked tokens."""
        return "mlm" in self.teacher.network.heads

    def init(self, key: jax.Array) -> Params:
        return self.student.init(key)

    def corrupt(self, batch: Batch, key: jax.Array) -> Batch:
        return self.student.corrupt(batch, key)

    @property
    def weights(self) -> dict[str, float]:
        d = self.distill
        weights = {name: (1 - d.weight) * w for name, w in self.student.weights.items()}
        if self.learns_relations:
            weights["relation_loss"] = d.weight * d.relation_weight
        if self.learns_logits:
            weights["logit_loss"] = d.weight * d.logit_weight
        return weights

    def counts(self, batch: Batch) -> dict[str, jax.Array]:
        counts = dict(self.student.counts(batch))
        if self.learns_relations:
            counts["relation_loss"] = token_weights(batch).sum()
        if self.learns_logits:
            counts["logit_loss"] = batch["weights"].sum()
        return counts

    def terms(self, params: Params, batch: Batch, key: jax.Array | None) -> Terms:
        student = self.student.network.clone(return_layers=self.learns_relations)
        out = apply_network(student, params, batch, key)
        terms = self.student.output_terms(params, out, batch, training=key is not None)
        teacher_params = jax.lax.stop_gradient(self.teacher_params)
        teacher_out = apply_network(self.teacher.network, teacher_params, batch, None)
        if self.learns_relations:
            pair = (params, out), (teacher_params, teacher_out)
            terms["relation_loss"] = self._relation_loss(*pair, batch)
        if self.learns_logits:
            tables = params["embeddings"]["word"], teacher_params["embeddings"]["word"]
            terms["logit_loss"] = self._logit_loss((out["mlm"], teacher_out["mlm"]), tables, batch)
        return terms

    def encoder(self, params: Params) -> tuple[Network, Params]:
        return self.student.encoder(params)

    def mask_filler(self, params: Params) -> tuple[Network, Params]:
        return self.student.mask_filler(params)

    def _relation_loss(
        self, student: tuple[Params, Any], teacher: tuple[Params, Any], batch: Batch
    ) -> Mean:
        networks = self.student.network, self.teacher.network
        layers = networks[0].config.layers, self.teacher.layer
        qkv = [
            relations.queries_keys_values(params, network.config, out["layers"][n - 1], n)
            for network, n, (params, out) in zip(networks, layers, (student, teacher), strict=True)
        ]
        mask = encoder_inputs(batch).mask

        def chunk_loss(student: Any, teacher: Any, segments: jax.Array) -> tuple[Mean, None]:
            heads = self.teacher.relation_heads
            return relations.relation_loss(student, teacher, segments, mask.packed, heads), None

        return in_chunks(chunk_loss, self.student.loss_chunks, *qkv, mask.segments)[0]

    def _logit_loss(
        self,
        heads: tuple[LMHeadOutput, LMHeadOutput],
        tables: tuple[jax.Array, jax.Array],
        batch: Batch,
    ) -> Mean:
        temperature = self.distill.temperature

        def chunk_loss(features: tuple[jax.Array, ...], weights: jax.Array) -> tuple[Mean, None]:
            logits = [
                head._replace(features=x).logits(table)
                for head, x, table in zip(heads, features, tables, strict=True)
            ]
            losses = softened_kl(logits[0], logits[1], temperature)
            return weighted_mean(losses, weights), None

        features = tuple(head.features for head in heads)
        return in_chunks(chunk_loss, self.student.loss_chunks, features, batch["weights"])[0]


def distilled(student: MaskedObjective, teacher: Objective, distill: Distill) -> DistilledObjective:
    """The student's objective with the terms of a teacher that has the objective `teacher`.

    ValueError: the teacher has no such layer, the relation heads do not divide both widths, or
    nothing is left to learn.
    """
    # The structure of a network does not depend on its parameters.
    network, _ = teacher.encoder(jax.eval_shape(teacher.init, jax.random.key(0)))
    relation_heads = distill.relation_heads or network.config.heads
    has_relations = distill.relation_weight > 0
    if has_relations and student.network.lora is not None:
        raise ValueError(
            f"lora.rank is {student.network.lora.rank}, and relations are not computed with "
            "adapters: set distill.relation_weight 0 to learn the logits alone"
        )
    if has_relations:
        relations.check_heads(
            relation_heads, teacher=network.config, student=student.network.config
        )
    layer = relations.resolve_layer(distill.teacher_layer, network.config)
    has_logits = distill.logit_weight > 0 and "mlm" in network.heads
    if not has_relations and not has_logits:
        lacking = "" if "mlm" in network.heads else ", and it has no masked-LM head"
        raise ValueError(
            f"distill.relation_weight is {distill.relation_weight} and distill.logit_weight "
            f"{distill.logit_weight}{lacking}: nothing is left to learn from {distill.teacher}"
        )
    sizes = network.config.vocab_size, student.network.config.vocab_size
    if has_logits and len(set(sizes)) > 1:
        raise ValueError(
            f"the word table of {distill.teacher} has {sizes[0]} rows, the student's {sizes[1]}: "
            "expected equal vocabularies, or distill.logit_weight 0"
        )
    network = with_heads(network, *(["mlm"] if has_logits else []))
    network = network.clone(return_layers=has_relations, remat="none")
    return DistilledObjective(
        student, TeacherNetwork(teacher, network, layer, relation_heads), distill
    )
