"""A run that starts from another model (`run.init`).

    encoder       the model's, but the dropout rates are the config's, and with
                  `run.init_positions` the length and the bases of rotary positions; with
                  `run.init_layers` it has fewer layers (layer_selection.py)
    parameters    the model's, leaf by leaf under the same names. A parameter that only the
                  objective has is initialized at random; one that only the model has is left
                  out. Both are logged by name. A fine-tuned model's head is kept where the
                  task is the same (kept_head.py).
    optimizer     fresh, at step 0

The run folder's config.json records that encoder, so resuming does not read the model again.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from bert_jax import config as configs
from bert_jax import convert
from bert_jax.checkpoint import run_dir
from bert_jax.config import (
    DROPOUT_RATES,
    Contrastive,
    Encoder,
    Experiment,
    ReplacedTokens,
    Supervised,
)
from bert_jax.convert.hf_config import hf_family
from bert_jax.data.corpus import Corpus
from bert_jax.data.tokenization import tokenizer as tokenizers
from bert_jax.data.tokenization.tokenizer import Tokenizer
from bert_jax.distributed import initialize, sharding
from bert_jax.inference.model import Model, load
from bert_jax.inference.transfer import disentangled_as, in_tower, sources
from bert_jax.model import electra, lora
from bert_jax.training import adapter_base, kept_head
from bert_jax.training.kept_head import NO_HEAD, TASK_HEADS, HeadDecision
from bert_jax.training.layer_selection import describe_layers, select_model_layers, with_layers
from bert_jax.training.step import CompiledSteps, TrainState
from bert_jax.utils import hub, remote
from bert_jax.utils.pytree import flatten_with_names, map_with_names

logger = logging.getLogger(__name__)


class TransferResult(NamedTuple):
    """Which parameters of a model an objective takes over."""

    params: dict[str, Any]  # by the objective's names
    initialized: list[str]  # names of the objective's that the model lacks
    unused: list[str]  # names of the model's that the objective lacks
    head: str = ""  # what became of the head of a fine-tuned model, in words


@dataclass(frozen=True)
class WarmStart:
    """The model at `path`, as the start of the run that `config` describes."""

    path: str
    config: Experiment

    @cached_property
    def model(self) -> Model:
        """The model with its parameters in host memory, beside the run's on the devices."""
        model = load(self.source)
        return dataclasses.replace(model, params=jax.device_get(model.params))

    @property
    def source(self) -> str | Path:
        """The MODEL to load: a folder, or the recorded commit of a name on the Hub."""
        return hub.at_commit(self.path, self.config.run.init_commit)

    @cached_property
    def previous_config(self) -> Experiment | None:
        """The config in the run folder, if that run started from this model."""
        return previous_config(remote.local_cache_path(self.config.run.dir), self.path)

    def encoder(self, corpora: Sequence[Corpus]) -> Encoder:
        """The run's encoder. ValueError: a corpus was prepared with another tokenizer."""
        if self.previous_config is None:
            self._check_tokenizer(corpora[0])
        encoder = (self.previous_config or self.model.config).encoder
        encoder = with_layers(encoder, self.config.run.init_layers, self.path)
        names = [*DROPOUT_RATES]
        if self.config.run.init_positions == "config":
            if "learned" in (encoder.positions, self.config.encoder.positions):
                raise ValueError(
                    f"run.init_positions is config, but encoder.positions of {self.path} is "
                    f"{encoder.positions} and the config's {self.config.encoder.positions}: only "
                    "rotary positions have no table; lengthen one with import --positions"
                )
            names += ["max_length", "rotary_theta", "local_rotary_theta"]
        return configs.replace(encoder, **{n: getattr(self.config.encoder, n) for n in names})

    def with_family(self, config: Experiment) -> Experiment:
        """The config, whose sentence encoder has the model's family: an export needs it."""
        if not isinstance(config.objective, Contrastive):
            return config
        family = model_family(self.previous_config or self.model.config)
        return configs.replace(config, objective=dict(family=family))

    def apply(self, steps: CompiledSteps) -> CompiledSteps:
        """`steps` whose `init` returns a state with the model's parameters. With adapters, the
        steps have the model's encoder as their base; it is read again when the run resumes.

        ValueError: parameters whose shapes are not those of the objective, another base; of
        `init`, other parameters than those of another process.
        """
        transferred: TransferResult | None = None
        if self.config.lora.enabled:
            transferred = self._transfer(steps)
            params = transferred.params
            steps = adapter_base.with_base(steps, params, self.config, self.path)
            heads = {name: x for name, x in params.items() if not lora.is_base(name)}
            transferred = transferred._replace(params=heads)
            self.__dict__.pop("model", None)  # free the host's copy
        elif self.previous_config is None:  # report a misfit before anything is written
            self._transfer(steps)

        def init() -> TrainState:
            result = transferred or self._transfer(steps)
            vocab_size = self.config.encoder.vocab_size
            try:
                initialize.check_same_content(
                    f"run.init {self.path}", lambda: lora.base_hash(result.params, vocab_size)
                )
            except ValueError as e:  # the run folder has been made
                folder = self.config.run.dir
                raise ValueError(f"{e}, and remove {folder} or choose another --run.dir") from None
            layers, chosen = self.config.run.init_layers, ""
            if layers is not None:
                chosen = describe_layers(self.model.config.encoder, layers, self.path)
            _log_transfer(self.path, result, chosen)
            state = steps.init()

            def leaf(name: str, initialized: jax.Array, like: Any) -> jax.Array:
                if name not in result.params:
                    return initialized
                # a copy, since the train step donates its state's buffers
                value = np.array(result.params[name], like.dtype)
                return sharding.put(value, like.sharding)

            params = map_with_names(leaf, state.params, steps.like.params)
            self.__dict__.pop("model", None)  # free the host's copy
            return state._replace(params=params)

        return steps._replace(init=init)

    def _transfer(self, steps: CompiledSteps) -> TransferResult:
        head = kept_head.decide(self.model.config.objective, self.config.objective, self.path)
        like = steps.network_params(steps.like.params)
        return transfer_params(self._padded_model(steps), like, head)

    def _padded_model(self, steps: CompiledSteps) -> Model:
        """The model with the layers that the run has, and with as many rows in its word table as
        the state has on its mesh."""
        step_sharding = steps.like.step.sharding
        assert isinstance(step_sharding, jax.sharding.NamedSharding)
        params = select_model_layers(self.model.params, self.model.config, self.config)
        params = sharding.pad_vocab(params, step_sharding.mesh)
        return dataclasses.replace(self.model, params=params)

    def _check_tokenizer(self, corpus: Corpus) -> None:
        if self.model.tokenizer.fingerprint != corpus.info.tokenizer_fingerprint:
            own = Path(self.path) / "tokenizer"
            tokenizer = own if own.is_dir() else self.source
            raise ValueError(
                f"{corpus.path} was prepared with another tokenizer than that of {self.path}: "
                f"prepare it with --tokenizer {tokenizer}"
            )


def from_config(config: Experiment) -> WarmStart | None:
    """None where the run starts from random parameters."""
    return None if config.run.init is None else WarmStart(config.run.init, config)


def pin_init(config: Experiment) -> Experiment:
    """The config with `run.init_commit`: the commit that the run folder recorded if its run started
    from this model, else the one that a name on the Hub stands for now; None for a folder.

    ValueError: as `hub.model_folder`.
    """
    init = config.run.init
    if init is None:
        return config
    previous = previous_config(remote.local_cache_path(config.run.dir), init)
    commit = hub.commit_of(init) if previous is None else previous.run.init_commit
    return configs.replace(config, run=dict(init_commit=commit))


def previous_config(folder: Path, init: str | None) -> Experiment | None:
    """The config in a run folder, or in that of its first seed, if it started from this model."""
    file = run_dir.config_file(folder)
    if file is None:
        return None
    previous = configs.read_config(file)
    return previous if run_dir.same_path(previous.run.init, init) else None


def load_config(path: str | Path) -> Experiment:
    """The config of a model, without its parameters. ValueError: the folder holds no model."""
    folder = convert.encoder_folder(hub.model_folder(path).path)
    if not convert.is_model_folder(folder):
        raise ValueError(f"{folder} holds no config.json: expected a run or Hugging Face folder")
    if convert.is_hf_folder(folder):
        return convert.read_hf_experiment(folder)
    return configs.read_config(folder / "config.json")


def load_tokenizer(path: str | Path) -> Tokenizer:
    """A model's tokenizer. ValueError: there is none, or it does not fit the word table."""
    folder = convert.encoder_folder(hub.model_folder(path).path)
    own = folder / "tokenizer"
    if convert.is_peft_folder(folder):
        own = convert.read_hf_folder(folder)[2]
    tokenizer = tokenizers.load_tokenizer(own if own.is_dir() else folder)
    convert.check_tokenizer(load_config(folder), tokenizer)
    return tokenizer


def model_family(model: Experiment) -> str:
    """The `config.ModelType` whose heads and names a model has; SpanBERT's is bert. ValueError: the
    encoder of a pre-trained model is none of Hugging Face's."""
    if isinstance(model.objective, Supervised | Contrastive):
        return model.objective.family
    return hf_family(model.encoder, model.objective).name


def transfer_params(model: Model, like: Any, head: HeadDecision = NO_HEAD) -> TransferResult:
    """Match the model's parameters to the names of the tree `like`. Where only one side has two
    networks (ELECTRA), a single network stands for the discriminator. A fine-tuned model's head is
    transferred if `head` says so.

    ValueError: lists every leaf whose shape differs.
    """
    params = disentangled_as(like, model.params)
    flat, shapes = flatten_with_names(params), flatten_with_names(like)
    kept = kept_head.head_params(model.params, head)
    flat |= kept
    general = {k: v for k, v in flat.items() if k in kept or not k.startswith(TASK_HEADS)}
    stand_ins = sources(general, isinstance(model.config.objective, ReplacedTokens))
    matched = {name: stand_ins[k] for name in shapes if (k := in_tower(name)) in stand_ins}
    mismatches = [
        f"{name} {list(flat[source].shape)}, here {list(shapes[name].shape)}"
        for name, source in matched.items()
        if flat[source].shape != shapes[name].shape
    ]
    if mismatches:
        raise ValueError(
            "the parameters of run.init do not fit the objective: use the sizes that the model was "
            "trained with (a generator's: objective.generator_size, "
            f"objective.generator_layers); {'; '.join(mismatches)}"
        )
    return TransferResult(
        params={name: flat[source] for name, source in matched.items()},
        initialized=[name for name in shapes if name not in matched],
        unused=sorted(set(flat) - set(matched.values())),
        head=head.message,
    )


def _log_transfer(path: str, result: TransferResult, layers: str) -> None:
    for line in filter(None, (layers, result.head)):
        logger.info(line)

    def beside_the_head(names: list[str]) -> list[str]:
        names = [n for n in names if not lora.is_adapter(n)]
        return [n for n in names if not (result.head and n.startswith(TASK_HEADS))]

    initialized = beside_the_head(result.initialized)
    zero = [n for n in initialized if n.endswith(electra.DIFFERENCE)]
    for what, names in (
        (f"not in {path}, initialized at random", [n for n in initialized if n not in zero]),
        (f"not in {path}, initialized at zero", zero),
        (f"in {path}, not used by the objective", beside_the_head(result.unused)),
    ):
        if names:
            logger.info("%s: %s", what, ", ".join(names))
