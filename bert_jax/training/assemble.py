"""From a config to everything that a run needs. Start reading here.

    config -> data        open_data     corpora or labeled rows, tokenizer, the model to start from
           -> mesh        sharding      devices along the axes data, fsdp and tensor
           -> objective   objectives    networks, masking and losses, as pure functions
                                        (with a teacher's terms: distilled, teacher)
           -> steps       step          init, train and evaluate, jitted with shardings
           -> first state warm_start    random, or the parameters of `run.init`

`pretrain`, `finetune`, `replay`, `bench` and `plan` all call `assemble`; they differ in the data
they bring and in what they do with the steps.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import jax

from bert_jax import objectives, optim
from bert_jax.config import (
    Contrastive,
    Encoder,
    Experiment,
    Imported,
    Masked,
    ReplacedTokens,
    Supervised,
)
from bert_jax.data import mixture
from bert_jax.data.corpus import Corpus
from bert_jax.data.mixture import StageData
from bert_jax.data.tokenization.tokenizer import Tokenizer
from bert_jax.data.vocabulary import Vocabulary
from bert_jax.distributed import sharding
from bert_jax.inference.adapter import num_adapted
from bert_jax.training import adapter_base, evaluation, warm_start
from bert_jax.training.finetune_config import FinetuneTask
from bert_jax.training.pairs import PairsTask
from bert_jax.training.step import CompiledSteps, compile_steps
from bert_jax.training.teacher import Teacher, load_teacher
from bert_jax.training.warm_start import WarmStart
from bert_jax.utils import pytree
from bert_jax.utils.types import Batch, Slices

logger = logging.getLogger(__name__)


class Data(Protocol):
    """What a run learns from."""

    @property
    def config(self) -> Experiment:
        """The config, with every field that the data decides."""
        ...

    @property
    def vocabulary(self) -> Vocabulary | None:
        """What masking needs to know about the tokenizer; None for labeled rows."""
        ...

    @property
    def warm_start(self) -> WarmStart | None:
        """The model that the run starts from; None for random parameters."""
        ...


@dataclass(frozen=True)
class CorpusData:
    """Prepared corpora, one mixture per stage of the batch schedule."""

    config: Experiment
    stages: list[StageData]
    warm_start: WarmStart | None = None
    teacher: Teacher | None = None

    @property
    def corpora(self) -> list[Corpus]:
        """The corpora of all stages."""
        return [corpus for stage in self.stages for corpus in stage.corpora]

    @property
    def tokenizer(self) -> Tokenizer:
        """All corpora were prepared with the same one."""
        return self.corpora[0].tokenizer

    @property
    def tokenizer_dir(self) -> Path:
        """The folder of the tokenizer."""
        return self.corpora[0].path / "tokenizer"

    @property
    def is_packed(self) -> bool:
        """Whether rows hold several sequences each."""
        return bool(self.corpora[0].info.packed)

    @property
    def vocabulary(self) -> Vocabulary:
        objective = self.config.objective
        masks = isinstance(objective, Masked | ReplacedTokens)
        rule = objective.masking.word_rule if masks else "script"
        return mixture.corpus_vocabulary(self.stages[-1], rule)

    @property
    def pair_share(self) -> float | None:
        """The share of training pairs with label 1 in the last stage; None without pairs."""
        return mixture.pair_share(self.stages[-1])

    def batches_from(self, config: Experiment, slices: Slices) -> Callable[[int], Iterator[Batch]]:
        """A function from a step to the batches from that step on, of the parts `slices`."""
        return mixture.training_loader(config, self.stages, slices).iterate


@dataclass(frozen=True)
class Assembly:
    """The parts of one run, ready to train."""

    config: Experiment
    data: Any  # as it was given to `assemble`
    mesh: jax.sharding.Mesh
    objective: objectives.Objective
    steps: CompiledSteps

    def train_batches(self) -> Callable[[int], Iterator[Batch]]:
        """The batches from a step on: the parts of each that this process reads."""
        return self.data.batches_from(self.config, sharding.process_slices(self.mesh))

    def held_out_batches(self) -> Iterator[Batch]:
        """The batches of an evaluation: held-out rows of the last stage."""
        slices = sharding.process_slices(self.mesh)
        held_out = mixture.evaluation_loader(self.config, self.data.stages, slices)
        # One pass goes by micro-batches, as training does.
        max_batches = self.config.run.eval_batches * self.config.optim.accumulate
        return held_out.one_pass(max_batches)

    def evaluate(self, params: Any) -> dict[str, float]:
        """`eval_` metrics on the held-out rows."""
        batches, share = self.held_out_batches(), self.data.pair_share
        return evaluation.evaluate(self.steps, self.objective, params, batches, share)


def assemble(
    config: Experiment, data: Data | None = None, devices: Sequence[Any] | None = None
) -> Assembly:
    """Put a run together; nothing is compiled and nothing is written yet.

    `config` describes the run. `data` is what `open_data(config)` returned, or a stand-in; then
    `config` is `data.config`, or differs from it only in seed, folder or batch size. `devices`
    are those of this machine unless given; they may be descriptions of devices elsewhere.

    ValueError: what `open_data` refuses; a mesh or batch that does not fit the devices; a model
    in `run.init` whose parameters have other shapes.
    """
    if data is None:
        data = open_data(config)
        config = data.config
    mesh = sharding.make_mesh(config.mesh, devices)
    objective = objectives.build(config, data.vocabulary)
    teacher = data.teacher if isinstance(data, CorpusData) else None
    if teacher is not None:
        objective = teacher.objective_of(objective, config)
    steps = compile_steps(config, objective, mesh)
    if teacher is not None:
        steps = teacher.apply(steps, objective, mesh)
    if config.optim.freeze is not None:
        depth = optim.network_depth(config)
        sizes = optim.frozen_counts(config.optim.freeze, depth, steps.like.params)
        if sizes[0] == sizes[1]:
            raise ValueError(
                f"optim.freeze is {config.optim.freeze}, which leaves no parameter to train: name "
                "fewer parts, such as embeddings or the lower layers"
            )
        logger.info("optim.freeze %s: %d of %d parameters are frozen", config.optim.freeze, *sizes)
    if config.lora.enabled:
        trained, base = (pytree.count(x) for x in (steps.like.params, steps.fixed["base"]))
        logger.info(
            "lora: %d of %d parameters are trained, adapters of rank %d beside %d kernels, and "
            "heads",
            *(trained, trained + base, config.lora.rank, num_adapted(steps.like.params)),
        )
    start = data.warm_start
    if start is not None:
        steps = start.apply(steps)
    return Assembly(config, data, mesh, objective, steps)


def open_data(
    config: Experiment, encoder: Encoder | None = None
) -> CorpusData | FinetuneTask | PairsTask:
    """Open what the config names, and fill in what it decides.

    `encoder` replaces the one that the model in `run.init` brings: a run folder records it.
    ValueError: a folder that holds no corpus or task, corpora of different tokenizers, rows longer
    than the model.
    """
    if isinstance(config.objective, Supervised):
        return FinetuneTask.of(config)
    if isinstance(config.objective, Contrastive) and config.objective.task == "pairs":
        return PairsTask.of(config)
    return open_corpora(config, encoder)


def open_corpora(config: Experiment, encoder: Encoder | None = None) -> CorpusData:
    """`open_data` for pre-training. With `encoder`, a config that a run folder recorded."""
    if isinstance(config.objective, Supervised | Imported):
        raise ValueError(
            f"the config's objective is {type(config.objective).__name__}, which is not trained on "
            "a corpus: expected a config for pre-training, such as bert_base; for a task use "
            "bert-jax finetune"
        )
    if encoder is None:
        config = warm_start.pin_init(config)
    stages = mixture.open_stages(config)
    corpora = [corpus for stage in stages for corpus in stage.corpora]
    start = warm_start.from_config(config)
    if start is not None and encoder is None:
        encoder = start.encoder(corpora)
        config = start.with_family(config)
    filled = adapter_base.pin_base(mixture.fill_in_config(config, corpora, encoder))
    teacher = load_teacher(filled)
    if teacher is not None:
        teacher.check_corpora(filled, corpora)
        filled = teacher.pin(filled)
    if start is not None and filled.lora.enabled:
        start = dataclasses.replace(start, config=filled)  # it checks the hash of its base
    return CorpusData(filled, stages, start, teacher)
