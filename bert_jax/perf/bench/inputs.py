"""What a benchmark trains on: rows of a corpus, or full rows of random ids. Both go through the
same files and the same loader."""

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
from bert_jax.training.assemble import open_corpora
from bert_jax.utils.types import Batch

POOL = 4  # different batches, which the timed steps cycle through
SPECIALS = 5  # special tokens of a random vocabulary; the last is the mask


@dataclass(frozen=True)
class BenchInputs:
    """A config with what its rows decide, and their batches; what `assemble` takes as data."""

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
        return [self.batches[i] for i in range(POOL)]

    def rate(self, seconds: float = 2.0) -> dict[str, float] | None:
        """Tokens per second of the loader alone, after its first batches; None for labeled rows."""
        if self.batches is None:
            return None
        stream = self.batches.iterate(0)
        for _ in range(self.config.data.threads + 1):
            next(stream)
        real = padded = 0
        begin = time.perf_counter()
        while (spent := time.perf_counter() - begin) < seconds:
            batch = next(stream)
            real += real_tokens(batch)
            padded += batch["tokens"].size
        return {"tokens_per_second": real / spent, "padded_tokens_per_second": padded / spent}


def real_tokens(batch: Batch) -> int:
    """Number of tokens that are not padding."""
    return int(np.sum(batch["size"]))


def of_corpus(config: Experiment) -> BenchInputs:
    """Rows of `data.path`, as `pretrain` reads them."""
    data = open_corpora(config)
    batches = mixture.training_loader(data.config, data.stages)
    return BenchInputs(data.config, data.vocabulary, batches, "corpus")


def of_random_ids(config: Experiment, stack: ExitStack) -> BenchInputs:
    """Full rows of random ids, in a corpus that is removed when the stack closes."""
    encoder, shape = config.encoder, config.data
    v, length = encoder.vocab_size, shape.length or encoder.max_length
    if v < 2 * SPECIALS:
        raise ValueError(f"encoder.vocab_size is {v}: expected at least {2 * SPECIALS}")
    config = replace(config, data=dict(length=length))
    if isinstance(config.objective, Supervised):
        return BenchInputs(config, None, None, "labeled")
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bert_jax_bench_")))
    source = write_random(folder, max(256, POOL * shape.batch_size), length, v)
    batches = loader.Loader([source], shape.batch_size, length, encoder.pad_id)
    special = np.zeros(v, bool)
    special[: SPECIALS + 1] = True  # RoBERTa's padding is 1: none of the first is ever in a row
    vocabulary = Vocabulary(SPECIALS - 1, special, ~special, np.where(special, 0, 1))
    return BenchInputs(config, vocabulary, loader.StagedLoader([(0, batches)]), "random")


def write_random(folder: Path, rows: int, length: int, vocab_size: int) -> records.RecordSource:
    """A split of full rows on disk, read as every corpus is."""
    from array_record.python.array_record_data_source import ArrayRecordDataSource

    rng, dtype = np.random.default_rng(0), records.token_dtype(vocab_size)
    writer = records.SplitWriter(folder, "train")
    for i in range(rows):
        tokens = rng.integers(SPECIALS + 1, vocab_size, length, np.int32)
        row = TokenRow(tokens, length // 2, i % 2)
        writer.add([records.serialize_row(row, length, 0, dtype)])
    writer.close()
    files = sorted(str(f) for f in folder.glob("*array_record*"))
    return records.RecordSource(ArrayRecordDataSource(files), dtype, packed=False)


def labeled(config: Experiment, options: int = 4) -> Batch:
    """One batch of full rows with random labels, as in fine-tuning."""
    objective, shape = config.objective, config.data
    assert isinstance(objective, Supervised)
    assert shape.length
    b, length, rng = shape.batch_size, shape.length, np.random.default_rng(0)
    rows = (b, options) if objective.task_type == "choice" else (b,)
    classes = options if objective.task_type == "choice" else objective.num_outputs
    batch = {
        "tokens": rng.integers(SPECIALS, config.encoder.vocab_size, (*rows, length)),
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
    if objective.task_type == "regression":
        batch["label"] = batch["label"].astype(np.float32)
    return batch
