"""Where a run begins that takes over another model (`run.init`).

    encoder       the model's, but for both rates of dropout, which are the config's
    parameters    the model's, leaf by leaf under the same names; what only the objective has is
                  drawn at random, what only the model has stays behind, and both are named
    optimiser     fresh, at step 0

The run folder's config.json holds that encoder, so going on does not read the model again.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from bert_jax import config, convert
from bert_jax.config import Encoder, Experiment, ReplacedTokens, Supervised
from bert_jax.convert.hf_config import hf_family
from bert_jax.data.corpus import Corpus
from bert_jax.data.tokenization import tokenizer as tokenizers
from bert_jax.data.tokenization.tokenizer import Tokenizer
from bert_jax.distributed import sharding
from bert_jax.inference.model import Model, load
from bert_jax.training.step import CompiledSteps, TrainState
from bert_jax.utils import remote
from bert_jax.utils.pytree import flatten_with_names, map_with_names

logger = logging.getLogger(__name__)

TOWERS = ("generator/", "discriminator/")
TASK_HEADS = ("label/", "tag/", "span/")  # of one task, of no use to another


class TransferResult(NamedTuple):
    """What a model gives to an objective."""

    params: dict[str, Any]  # by the objective's names
    drawn: list[str]  # the objective's, which the model lacks
    unused: list[str]  # the model's, which the objective lacks


@dataclass(frozen=True)
class WarmStart:
    """The model at `path`, for the run that `asked` describes."""

    path: str
    asked: Experiment

    @cached_property
    def model(self) -> Model:
        """Its parameters lie in the host's memory, beside the run's on the devices."""
        model = load(self.path)
        return replace(model, params=jax.device_get(model.params))

    @cached_property
    def previous_config(self) -> Experiment | None:
        """The config of the run folder, if it was begun from this model before."""
        file = remote.local_cache_path(self.asked.run.dir) / "config.json"
        before = config.read_config(file) if file.is_file() else None
        return before if before is not None and before.run.init == self.path else None

    def encoder(self, corpora: Sequence[Corpus]) -> Encoder:
        """The run's encoder. ValueError: a corpus of another tokenizer than the model's."""
        if self.previous_config is None:
            self._check_tokenizer(corpora[0])
        known = (self.previous_config or self.model.config).encoder
        own = self.asked.encoder
        rates = dict(dropout=own.dropout, attention_dropout=own.attention_dropout)
        return config.replace(known, **rates)

    def begin(self, steps: CompiledSteps) -> CompiledSteps:
        """`steps` whose first state has the model's parameters.

        ValueError: parameters whose shapes are not those of the objective.
        """
        if self.previous_config is None:  # what is wrong shall be said before anything is written
            transfer_params(self._padded(steps), steps.like.params)

        def init() -> TrainState:
            inherited = transfer_params(self._padded(steps), steps.like.params)
            if jax.process_index() == 0:
                _tell(self.path, inherited)
            state = steps.init()

            def leaf(name: str, drawn: jax.Array, like: Any) -> jax.Array:
                if name not in inherited.params:
                    return drawn
                # a copy: the train step gives its state's memory away
                given = np.array(inherited.params[name], like.dtype)
                return jax.device_put(given, like.sharding)

            params = map_with_names(leaf, state.params, steps.like.params)
            self.__dict__.pop("model", None)  # nobody asks for it again
            return state._replace(params=params)

        return steps._replace(init=init)

    def _padded(self, steps: CompiledSteps) -> Model:
        """The model with as many rows in its word table as the state has on its mesh."""
        lies = steps.like.step.sharding
        assert isinstance(lies, jax.sharding.NamedSharding)
        mesh = lies.mesh
        return dataclasses.replace(self.model, params=sharding.pad_vocab(self.model.params, mesh))

    def _check_tokenizer(self, corpus: Corpus) -> None:
        if self.model.tokenizer.fingerprint != corpus.info.tokenizer_fingerprint:
            folder = Path(self.path)
            beside = folder / "tokenizer" if (folder / "tokenizer").is_dir() else folder
            raise ValueError(
                f"{corpus.path} was prepared with another tokenizer than that of {self.path}: "
                f"prepare it with --tokenizer {beside}"
            )


def from_config(asked: Experiment) -> WarmStart | None:
    """None where a run begins with random parameters."""
    return None if asked.run.init is None else WarmStart(asked.run.init, asked)


def load_config(path: str) -> Experiment:
    """What a model is, without its parameters. ValueError: not a model's folder."""
    folder = Path(path)
    if not (folder / "config.json").is_file():
        raise ValueError(f"{folder} holds no config.json: expected a run or Hugging Face folder")
    if convert.is_hf_folder(folder):
        return convert.read_hf_experiment(folder)
    return config.read_config(folder / "config.json")


def load_tokenizer(path: str) -> Tokenizer:
    """A model's tokenizer. ValueError: none, or one that does not fit its word table."""
    folder = Path(path)
    own = folder / "tokenizer"
    tokenizer = tokenizers.load_tokenizer(own if own.is_dir() else folder)
    convert.check_tokenizer(load_config(path), tokenizer)
    return tokenizer


def model_family(model: Experiment) -> str:
    """bert (SpanBERT too), albert, roberta or electra."""
    if isinstance(model.objective, Supervised):
        return model.objective.family
    return hf_family(model.encoder, model.objective).name


def transfer_params(model: Model, like: Any) -> TransferResult:
    """The model's parameters under the names of the tree `like`. Where only one side has two
    towers (ELECTRA), a single network stands for the discriminator.

    ValueError: leaves of other shapes, all of them listed.
    """
    flat, wanted = flatten_with_names(model.params), flatten_with_names(like)
    given = {k: v for k, v in flat.items() if not k.startswith(TASK_HEADS)}
    sources = _sources(given, isinstance(model.config.objective, ReplacedTokens))
    found = {name: sources[k] for name in wanted if (k := _placed(name)) in sources}
    wrong = [
        f"{name} {list(flat[source].shape)}, here {list(wanted[name].shape)}"
        for name, source in found.items()
        if flat[source].shape != wanted[name].shape
    ]
    if wrong:
        raise ValueError(
            "the parameters of run.init do not fit the objective: give it the sizes that the model "
            "was trained with (a generator's: objective.generator_size, "
            f"objective.generator_layers); {'; '.join(wrong)}"
        )
    return TransferResult(
        params={name: flat[source] for name, source in found.items()},
        drawn=[name for name in wanted if name not in found],
        unused=sorted(set(flat) - set(found.values())),
    )


def _placed(name: str) -> str:
    return name if name.startswith(TOWERS) else f"discriminator/{name}"


def _sources(flat: dict[str, Any], towers: bool) -> dict[str, str]:
    """Place in one of the two towers -> the model's leaf; shared embeddings stand in both."""
    places = {_placed(name): name for name in flat}
    if towers:
        shared = [name for name in flat if not name.startswith(TOWERS)]
        places |= {f"generator/{name}": name for name in shared}
    return places


def _tell(path: str, inherited: TransferResult) -> None:
    said = (
        (f"not in {path}, drawn at random", inherited.drawn),
        (f"in {path}, of no use to the objective", inherited.unused),
    )
    for what, names in said:
        if names:
            logger.info("%s: %s", what, ", ".join(names))
