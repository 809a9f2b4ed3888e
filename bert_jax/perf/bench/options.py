"""What `bench` measures: its options, and the config that they make of the given one."""

from __future__ import annotations

import dataclasses
import itertools
from dataclasses import dataclass

from bert_jax.config import (
    Contrastive,
    Experiment,
    Imported,
    Masked,
    Masking,
    Mesh,
    ReplacedTokens,
    Supervised,
    replace,
)

DEFAULT_STEPS = 20


@dataclass(frozen=True)
class BenchOptions:
    """The flags of `bert-jax bench`. ValueError: a number below 1, or a flag that lacks another."""

    batch_size: int | None = None  # None: the config's
    length: int | None = None  # None: the config's
    steps: int = DEFAULT_STEPS  # timed rounds per contender
    against: bool = False  # also time transformers
    fit: bool = False  # also search the largest batch that fits
    data: str | None = None  # a corpus; None: full rows of random ids
    packed: str | None = None  # for bert_jax alone: the text of `data`, prepared with --pack
    compile: bool = True  # transformers also with torch.compile
    heads: tuple[str, ...] = ("gathered", "stock")  # of transformers; see transformers_peer
    eager: bool = True  # transformers also without torch.compile

    @property
    def peer_variants(self) -> list[tuple[str, bool]]:
        """The variants of transformers to time: the head, and whether it is compiled."""
        modes = [compiled for compiled in (False, True) if (self.eager, self.compile)[compiled]]
        return list(itertools.product(self.heads, modes))

    def __post_init__(self) -> None:
        for name in ("batch_size", "length", "steps"):
            value = getattr(self, name)
            if value is not None and value < 1:
                flag = name.replace("_", "-")
                raise ValueError(f"--{flag} is {value}: expected at least 1")
        if not (self.compile or self.against):
            raise ValueError("--no-compile needs --against transformers: it is for PyTorch alone")
        if self.packed and not (self.data and self.against):
            raise ValueError(
                "--packed needs --against transformers and --data with the same text, prepared "
                "without --pack; to time packed rows alone, give their corpus as --data"
            )


def bench_config(config: Experiment, options: BenchOptions) -> Experiment:
    """The config that is timed: with the batch size and length of the options, or else of the
    config's last stage, and without a corpus, which `open_inputs` adds.

    ValueError: the config has no objective to train, or one on pairs of texts, which no corpus has.
    """
    if options.against:
        config = masked_lm_config(config)
    if isinstance(config.objective, Imported):
        raise ValueError(
            "the config has no objective, so nothing can be trained; expected a config for "
            "pre-training or fine-tuning"
        )
    if isinstance(config.objective, Contrastive) and config.objective.task == "pairs":
        raise ValueError(
            "bench does not support objective.task pairs: give objective.task simcse, neighbors or "
            "crops, which train on rows of text"
        )
    stage = config.stages[-1]
    length = options.length or stage.length
    if length is None and isinstance(config.objective, Supervised):
        length = config.row_length
    batch_size = options.batch_size or stage.batch_size
    data = dict(stages=None, batch_size=batch_size, length=length, path=None, mix=None)
    return replace(config, data=data)


def masked_lm_config(config: Experiment) -> Experiment:
    """The same encoder with masked language modeling alone, on one device."""
    objective = config.objective
    if isinstance(objective, Masked):
        objective = dataclasses.replace(objective, sentence_pair=False, sbo_weight=0.0)
    else:
        is_electra = isinstance(objective, ReplacedTokens)
        objective = Masked(objective.masking if is_electra else Masking(), sentence_pair=False)
    return replace(config, objective=objective, mesh=Mesh())
