"""The teacher of a run (`distill.teacher`): a second model, which does not learn.

Its parameters are sharded like the run's and are no part of the state, so no checkpoint holds them.
config.json records the hash of their content: a resumed run has the same teacher, wherever its
folder is now.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np

from bert_jax import config as configs
from bert_jax import objectives
from bert_jax.checkpoint import run_dir
from bert_jax.config import Experiment, Masked, read_config, to_dict
from bert_jax.data.corpus import Corpus
from bert_jax.distributed import sharding
from bert_jax.inference.model import Model, load
from bert_jax.objectives import DistilledObjective, MaskedObjective, Objective
from bert_jax.objectives.distilled import distilled
from bert_jax.training.compiled_steps import CompiledSteps
from bert_jax.utils import hub, remote
from bert_jax.utils.pytree import flatten_with_names

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Teacher:
    """A model with its parameters in host memory, and where it came from."""

    path: str
    model: Model
    commit: str | None = None  # of a name on the Hub

    def pin(self, config: Experiment) -> Experiment:
        """The config with the hash and the commit of the teacher."""
        fields = dict(teacher_hash=content_hash(self.model), teacher_commit=self.commit)
        return configs.replace(config, distill=fields)

    def check_length(self, config: Experiment) -> None:
        """ValueError: the rows may be longer than this teacher reads."""
        length, longest = config.data.length or 0, self.model.config.encoder.max_length
        if length > longest:
            raise ValueError(
                f"the teacher {self.path} reads up to {longest} tokens, and rows have up to "
                f"{length}: lower data.length to {longest}"
            )

    def check_corpora(self, config: Experiment, corpora: Sequence[Corpus]) -> None:
        """ValueError unless the run is a masked language model whose rows this teacher can read."""
        start, model = f"the teacher {self.path}", self.model
        if not isinstance(config.objective, Masked):
            raise ValueError(
                f"{start} is given, and the objective is {type(config.objective).__name__}: "
                "expected a config of a masked language model, such as configs/bert_base.py"
            )
        for corpus in corpora:
            if model.tokenizer.fingerprint != corpus.info.tokenizer_fingerprint:
                raise ValueError(
                    f"{start} has another vocabulary than {corpus.path}: prepare the text with the "
                    "teacher's tokenizer (prepare --tokenizer), or choose another teacher"
                )
        self.check_length(config)

    def objective_of(self, student: Objective, config: Experiment) -> DistilledObjective:
        """The student's objective with this teacher's terms. ValueError: as `distilled`."""
        assert isinstance(student, MaskedObjective)
        run = dict(dtype=config.run.dtype, attention=config.run.attention, unroll=config.run.unroll)
        own = objectives.build(configs.replace(self.model.config, run=run))
        objective = distilled(student, own, config.distill)
        learned = [name for name in ("relation_loss", "logit_loss") if name in objective.weights]
        logger.info("the run learns from %s: %s", self.path, ", ".join(learned))
        if config.distill.logit_weight and not objective.learns_logits:
            logger.info(
                "%s has no masked-LM head on its encoder: logit_loss is left out", self.path
            )
        return objective

    def apply(
        self, steps: CompiledSteps, objective: Objective, mesh: jax.sharding.Mesh
    ) -> CompiledSteps:
        """The steps of a student's `objective_of` with this teacher's parameters on the mesh."""
        assert isinstance(objective, DistilledObjective)
        params = objective.teacher.network_params(self.model.params)
        return steps.with_fixed(teacher=_on_mesh(params, mesh))

    def on_mesh(self, mesh: jax.sharding.Mesh) -> Any:
        """The parameters on the devices of a mesh, sharded as a student's are."""
        return _on_mesh(self.model.params, mesh)


def _on_mesh(params: Any, mesh: jax.sharding.Mesh) -> Any:
    padded = jax.device_get(sharding.pad_vocab(params, mesh))
    return jax.tree.map(sharding.put, padded, sharding.shardings(padded, mesh))


def load_teacher(config: Experiment) -> Teacher | None:
    """The model that `distill.teacher` names; None without one.

    ValueError: as `load`; other fields of `distill` are set, and there is no teacher.
    """
    config.distill.check_unused()
    path = config.distill.teacher
    if path is None:
        return None
    commit = _recorded_commit(config) or hub.commit_of(path)
    try:
        model = load(hub.at_commit(path, commit))
    except ValueError as e:
        raise ValueError(f"distill.teacher: {e}") from e
    return Teacher(path, replace(model, params=jax.device_get(model.params)), commit)


def _recorded_commit(config: Experiment) -> str | None:
    """The commit of the teacher with which the run folder began."""
    file = run_dir.config_file(remote.local_cache_path(config.run.dir))
    if file is None:
        return None
    saved = read_config(file).distill
    same = run_dir.same_path(saved.teacher, config.distill.teacher)
    return saved.teacher_commit if same else None


def content_hash(model: Model) -> str:
    """SHA-256 of what a model computes: its parameters, its encoder, its objective, and its
    tokenizer. It does not depend on where the model lies. Fields with their default value do not
    count, so that a field that a later version adds changes no hash."""
    content = hashlib.sha256(model.tokenizer.fingerprint.encode())
    for part in (model.config.encoder, model.config.objective):
        values, defaults = to_dict(part), to_dict(type(part)())
        changed = {name: x for name, x in values.items() if x != defaults[name]}
        content.update(f"{type(part).__name__} {json.dumps(changed, sort_keys=True)}".encode())
    for name, leaf in flatten_with_names(model.params).items():
        array = np.ascontiguousarray(leaf)
        content.update(f"{name} {array.shape} {array.dtype}".encode())
        content.update(array.data)
    return content.hexdigest()
