"""What is trained on: rows of a corpus, or full rows of random ids, which go through the same
files and the same loader."""

from __future__ import annotations

import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bert_jax import config
from bert_jax.config import Experiment, Supervised
from bert_jax.data import loader, mixture, records
from bert_jax.data.segments import TokenRow
from bert_jax.data.vocabulary import Vocabulary
from bert_jax.utils.types import Batch

POOL = 4  # different batches that the timed steps go round
SPECIALS = 5  # of a made-up vocabulary; the last is the mask


@dataclass(frozen=True)
class BenchInputs:
    """An experiment with what its rows decide, and their batches."""

    experiment: Experiment
    vocabulary: Vocabulary | None
    batches: loader.StagedLoader | None  # None: labelled rows, of which there is one batch
    source: str  # corpus, random or labelled

    @property
    def packed(self) -> bool:
        """Whether rows hold several sequences each."""
        return self.batches is not None and self.batches[0]["size"].ndim > 1

    def pool(self) -> list[Batch]:
        """The batches that are trained on, round and round."""
        if self.batches is None:
            return [labelled(self.experiment)]
        return [self.batches[i] for i in range(POOL)]

    def rate(self, seconds: float = 2.0) -> dict[str, float] | None:
        """Tokens per second of the loader alone, after its first batches."""
        if self.batches is None:
            return None
        stream = self.batches.iterate(0)
        for _ in range(self.experiment.data.threads + 1):
            next(stream)
        real = padded = 0
        begin = time.perf_counter()
        while (spent := time.perf_counter() - begin) < seconds:
            batch = next(stream)
            real += real_tokens(batch)
            padded += batch["tokens"].size
        return {"tokens_per_second": real / spent, "padded_tokens_per_second": padded / spent}


def real_tokens(batch: Batch) -> int:
    """Places that are no padding."""
    return int(np.sum(batch["size"]))


def of_corpus(asked: Experiment) -> BenchInputs:
    """Rows of `data.path`, as `pretrain` reads them."""
    stages = mixture.open_stages(asked)
    opened = [corpus for stage in stages for corpus in stage.corpora]
    experiment = mixture.fill_in_config(asked, opened)
    vocabulary = mixture.corpus_vocabulary(stages[-1])
    return BenchInputs(
        experiment, vocabulary, mixture.training_loader(experiment, stages), "corpus"
    )


def random(asked: Experiment, stack: ExitStack) -> BenchInputs:
    """Full rows of random ids in a corpus of their own, which goes when the stack closes."""
    encoder, shape = asked.encoder, asked.data
    v, length = encoder.vocab_size, shape.length or encoder.max_length
    if v < 2 * SPECIALS:
        raise ValueError(f"encoder.vocab_size is {v}: expected at least {2 * SPECIALS}")
    asked = config.replace(asked, data=dict(length=length))
    if isinstance(asked.objective, Supervised):
        return BenchInputs(asked, None, None, "labelled")
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bert_jax_bench_")))
    source = write_random(folder, max(256, POOL * shape.batch_size), length, v)
    batches = loader.Loader([source], shape.batch_size, length, encoder.pad_id)
    special = np.zeros(v, bool)
    special[: SPECIALS + 1] = True  # RoBERTa's padding is 1: none of the first is ever in a row
    vocabulary = Vocabulary(SPECIALS - 1, special, ~special, np.where(special, 0, 1))
    return BenchInputs(asked, vocabulary, loader.StagedLoader([(0, batches)]), "random")


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


def labelled(experiment: Experiment, options: int = 4) -> Batch:
    """One batch of full rows with random labels, as fine-tuning's."""
    objective, shape = experiment.objective, experiment.data
    assert isinstance(objective, Supervised)
    assert shape.length
    b, length, rng = shape.batch_size, shape.length, np.random.default_rng(0)
    rows = (b, options) if objective.task_type == "choice" else (b,)
    classes = options if objective.task_type == "choice" else objective.num_outputs
    batch = {
        "tokens": rng.integers(SPECIALS, experiment.encoder.vocab_size, (*rows, length)),
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
