"""Training data of a benchmark: rows of a corpus, or full rows of random ids, read from the same
kind of files by the same loader."""

from __future__ import annotations

import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bert_jax.config import Experiment, Supervised, replace
from bert_jax.data import loader, mixture, records
from bert_jax.data.segments import TokenRow
from bert_jax.data.vocabulary import Vocabulary
from bert_jax.perf.stand_ins import NUM_SPECIAL, stand_in_vocabulary
from bert_jax.training.assemble import open_corpora
from bert_jax.utils.types import Batch

NUM_BATCHES = 4  # different batches, which the timed steps cycle through


@dataclass(frozen=True)
class BenchInputs:
    """The batches, and the config with every field that they decide: data for `assemble`."""

    config: Experiment
    vocabulary: Vocabulary | None
    batches: loader.StagedLoader | None  # None: labeled rows, of which there is one batch
    source: str  # corpus, random or labeled

    warm_start = None  # the speed does not depend on the parameters' values

    @property
    def packed(self) -> bool:
        """Whether rows hold several sequences each."""
        return self.batches is not None and self.batches[0]["size"].ndim > 1

    def pool(self) -> list[Batch]:
        """The batches that the timed steps cycle through."""
        if self.batches is None:
            return [labeled(self.config)]
        return [self.batches[i] for i in range(NUM_BATCHES)]

    def loader_rate(self, seconds: float = 2.0) -> dict[str, float] | None:
        """Tokens per second of the loader alone, after its first batches; None for labeled rows."""
        if self.batches is None:
            return None
        stream = self.batches.iterate(0)
        for _ in range(self.config.data.threads + 1):
            next(stream)
        real = padded = 0
        start = time.perf_counter()
        while (elapsed := time.perf_counter() - start) < seconds:
            batch = next(stream)
            real += real_tokens(batch)
            padded += batch["tokens"].size
        return {"tokens_per_second": real / elapsed, "padded_tokens_per_second": padded / elapsed}


def real_tokens(batch: Batch) -> int:
    """Number of tokens that are not padding."""
    return int(np.sum(batch["size"]))


def open_inputs(config: Experiment, corpus: str | None, stack: ExitStack) -> BenchInputs:
    """Rows of a corpus, or of random ids without one; `stack` removes temporary files.

    ValueError: a corpus for a config of fine-tuning, or one that does not fit the config.
    """
    if corpus is None:
        return random_inputs(config, stack)
    if isinstance(config.objective, Supervised):
        raise ValueError(
            "--data takes a corpus for pre-training, but the config is for fine-tuning: leave it "
            "out to time rows of random ids"
        )
    return corpus_inputs(replace(config, data=dict(path=corpus)))


def check_peer_inputs(inputs: BenchInputs, peer_inputs: BenchInputs) -> None:
    """ValueError: transformers cannot train on its rows, or the two vocabularies differ in size."""
    if peer_inputs.packed:
        raise ValueError(
            "--data has packed rows, which --against transformers cannot take: give the same text "
            "prepared without --pack as --data, and this corpus as --packed"
        )
    size, peer_size = (i.config.encoder.vocab_size for i in (inputs, peer_inputs))
    if size != peer_size:
        raise ValueError(
            f"--packed has a vocabulary of {size}, --data of {peer_size}: prepare both with the "
            "same tokenizer"
        )


def corpus_inputs(config: Experiment) -> BenchInputs:
    """Rows of `data.path`, as `pretrain` reads them."""
    data = open_corpora(config)
    batches = mixture.training_loader(data.config, data.stages)
    return BenchInputs(data.config, data.vocabulary, batches, "corpus")


def random_inputs(config: Experiment, stack: ExitStack) -> BenchInputs:
    """Full rows of random ids, in a corpus that is removed when the stack closes."""
    encoder, shape = config.encoder, config.data
    v, length = encoder.vocab_size, shape.length or encoder.max_length
    if v < 2 * NUM_SPECIAL:
        raise ValueError(f"encoder.vocab_size is {v}: expected at least {2 * NUM_SPECIAL}")
    config = replace(config, data=dict(length=length))
    if isinstance(config.objective, Supervised):
        return BenchInputs(config, None, None, "labeled")
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bert_jax_bench_")))
    source = write_random_rows(folder, max(256, NUM_BATCHES * shape.batch_size), length, v)
    batches = loader.Loader([source], shape.batch_size, length, encoder.pad_id)
    vocabulary = stand_in_vocabulary(config)
    return BenchInputs(config, vocabulary, loader.StagedLoader([(0, batches)]), "random")


def write_random_rows(
    folder: Path, rows: int, length: int, vocab_size: int
) -> records.RecordSource:
    """Write a split of full rows of random ids, in the format of every corpus, and open it."""
    rng, form = np.random.default_rng(0), records.RowFormat(length, 0, vocab_size)
    writer = records.SplitWriter(folder, "train")
    for i in range(rows):
        tokens = rng.integers(NUM_SPECIAL + 1, vocab_size, length, np.int32)
        row = TokenRow(tokens, length // 2, i % 2)
        writer.add([form.serialize([row])])
    writer.close()
    files = sorted(str(f) for f in folder.glob("*array_record*"))
    dtype = records.token_dtype(vocab_size)
    return records.RecordSource(records.Shards(files, writer.shards), dtype, packed=False)


def labeled(config: Experiment, options: int = 4) -> Batch:
    """One batch of full rows with random labels, as in fine-tuning."""
    objective, shape = config.objective, config.data
    assert isinstance(objective, Supervised)
    assert shape.length
    b, length, rng = shape.batch_size, shape.length, np.random.default_rng(0)
    several = objective.task_type in ("choice", "rerank")
    rows = (b, options) if several else (b,)
    classes = options if objective.task_type == "choice" else objective.num_outputs
    batch = {
        "tokens": rng.integers(NUM_SPECIAL, config.encoder.vocab_size, (*rows, length)),
        "size": np.full(rows, length),
        "first": np.full(rows, length),
        "row": np.arange(b),
        "epoch": np.zeros(b),
        "label": rng.integers(0, classes, b),
        "tags": rng.integers(0, classes, (b, length)),
        "start": rng.integers(1, length, b),
        "context": np.ones(b),
    }
    batch = {k: v.astype(np.int32) for k, v in batch.items()}
    batch["end"], batch["impossible"] = batch["start"], np.zeros(b, bool)
    if objective.task_type == "multilabel":
        batch["label"] = rng.integers(0, 2, (b, objective.num_outputs)).astype(np.int32)
    if objective.task_type == "rerank":
        batch["label"] = np.eye(options, dtype=np.float32)[batch["label"] % options]
    if objective.task_type == "regression":
        batch["label"] = batch["label"].astype(np.float32)
    return batch
