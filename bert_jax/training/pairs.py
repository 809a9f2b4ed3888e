"""Sentence encoders: the pairs of a run, and how its checkpoints are compared.

Checkpoints are compared by nDCG@10 of a retrieval set, or by Spearman's correlation of pairs with
a score. `finetune` treats `PairsTask` like any other task.
"""

from __future__ import annotations

import dataclasses
import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

import jax
import numpy as np

from bert_jax.config import Contrastive, Experiment, replace
from bert_jax.data.labeled import LabeledBatches
from bert_jax.data.pairs import PairBatches, check_fills_a_batch
from bert_jax.data.tokenization import coverage
from bert_jax.data.tokenization.tokenizer import Tokenizer
from bert_jax.distributed import sharding
from bert_jax.objectives import ContrastiveObjective
from bert_jax.tasks import encode_pairs, pairs, retrieval
from bert_jax.tasks.encode_pairs import EncodedPairs
from bert_jax.tasks.metrics import correlations
from bert_jax.tasks.pairs import Pair, PairDataset, RetrievalSet, Split
from bert_jax.training import adapter_base, finetune_config, unused_fields
from bert_jax.training.step import CompiledSteps
from bert_jax.training.warm_start import WarmStart
from bert_jax.utils.types import Batch, Slices

logger = logging.getLogger(__name__)

TOP_DOCUMENTS = 10  # of each query, in predictions_SPLIT.jsonl


@dataclass(frozen=True)
class PairsTask:
    """The encoded pairs of a folder, and the config with what they decide."""

    config: Experiment
    dataset: PairDataset
    train: EncodedPairs
    tokenizer: Tokenizer

    vocabulary = None  # nothing is masked

    @staticmethod
    def of(config: Experiment) -> PairsTask:
        """Read `data.path` and encode the training pairs. ValueError: no such data, a loss for
        another kind of pairs, more dimensions than the encoder has."""
        objective = config.objective
        assert isinstance(objective, Contrastive)
        if config.distill.teacher is not None:
            raise ValueError(
                f"distill.teacher is {config.distill.teacher}, but pairs have no labels to soften: "
                "leave it out; to learn another model's similarities, put them into the rows as "
                "scores"
            )
        unused_fields.refuse_unused_fields(config)
        if config.data.path is None:
            raise ValueError("expected --data DIR: a folder with train.jsonl and dev")
        dataset = pairs.read_pair_dataset(config.data.path)
        loss = _resolve_loss(objective, dataset.scored)
        unused_fields.refuse_fields_of_other_losses(config, loss)
        _check_scores(loss, dataset)
        objective.check_dimensions(config.encoder.hidden_size)
        tokenizer = finetune_config.run_tokenizer(config)
        length = config.row_length
        config = replace(config, objective=dict(loss=loss), data=dict(length=length))
        train = encode_pairs.encode_pairs(
            dataset.train,
            tokenizer,
            length,
            objective.query_prompt,
            objective.document_prompt,
            objective.max_negatives,
        )
        check_fills_a_batch(train.rows, config.data.batch_size)  # before the run folder is made
        texts = (t for row in train.rows for t in (row["query"], *row["documents"]))
        coverage.log_rows(tokenizer, "texts of train", coverage.of_ids(tokenizer, texts))
        content = hashlib.sha256(repr(dataset.splits).encode()).hexdigest()
        filled = finetune_config.fill_in_steps(config, len(train.rows), content)
        return PairsTask(adapter_base.pin_base(filled), dataset, train, tokenizer)

    def with_seed(self, i: int) -> PairsTask:
        """The same pairs for the i-th of several seeds, in a folder of its own."""
        config = finetune_config.config_of_seed(self.config, i)
        return dataclasses.replace(self, config=config)

    @property
    def warm_start(self) -> WarmStart:
        """Every fine-tuning run starts from a model."""
        return WarmStart(str(self.config.run.init), self.config)

    @property
    def main_metric(self) -> str:
        """The metric by which checkpoints are compared: that of the kind of dev."""
        retrieval_set = isinstance(self.dataset.splits["dev"], RetrievalSet)
        return "spearman" if self.dataset.scored and not retrieval_set else "ndcg@10"

    def batches_from(self, config: Experiment, slices: Slices) -> Callable[[int], Iterator[Batch]]:
        """step -> the training batches from that step on."""
        batches = PairBatches(
            self.train.rows,
            config.data.batch_size,
            config.encoder.pad_id,
            config.run.seed,
            slices,
        )
        return batches.iterate

    @property
    def label_counts(self) -> list[str]:
        """The size of every split, one line each."""
        return [f"{split}: {_size(part)}" for split, part in self.dataset.splits.items()]

    @property
    def notes(self) -> list[str]:
        """What is unusual in the data, in words."""
        cut, length = self.train.num_truncated, self.config.data.length
        note = f"train: distinct texts longer than {length} tokens, truncated: {cut}"
        return [*self.dataset.notes, *([note] if cut else []), *self._padding_note()]

    def _padding_note(self) -> list[str]:
        """A note if few rows have most of the documents that are computed."""
        counts = np.array([len(row["documents"]) for row in self.train.rows])
        most, median = int(counts.max()), int(np.median(counts))
        if most <= 2 * median:
            return []
        return [
            f"train: a row has up to {most - 1} negatives (median {median - 1}), and all rows are "
            "padded to as many texts: --objective.max-negatives N uses fewer"
        ]


def _resolve_loss(objective: Contrastive, scored: bool) -> str:
    loss = objective.loss
    if loss == "auto":
        loss = "cosent" if scored else "ranking"
    if scored == (loss == "ranking"):
        rows = "a score" if scored else "a positive"
        usual = "cosent, cosine or margin" if scored else "ranking"
        raise ValueError(f"objective.loss is {loss}, and the rows have {rows}: expected {usual}")
    return loss


def _check_scores(loss: str, dataset: PairDataset) -> None:
    """ValueError: scores that cosines cannot reach, or that make the loss `margin` negative."""
    low = {"cosine": -1.0, "margin": 0.0}.get(loss)
    train = dataset.splits["train"]
    if low is None or not isinstance(train, list):
        return
    scores = [pair.score for pair in train if pair.score is not None]
    if min(scores) < low or max(scores) > 1:
        raise ValueError(
            f"the training rows have scores from {min(scores):g} to {max(scores):g}, and the loss "
            f"{loss} expects {low:g} to 1: rescale them, or leave objective.loss out (cosent "
            "learns the order of any scores)"
        )


def _size(split: Any) -> str:
    if isinstance(split, RetrievalSet):
        return f"{len(split.queries)} queries, {len(split.documents)} documents"
    return f"{len(split)} pairs"


def _as_retrieval_set(data: Split, tokenizer: Tokenizer) -> RetrievalSet:
    if isinstance(data, RetrievalSet):
        return data
    return pairs.pairs_as_retrieval_set(encode_pairs.merge_equal_texts(data, tokenizer))


def _random_order(split: str, found: RetrievalSet) -> str:
    """What a split's metrics are without a model."""
    chance = retrieval.expected_at_random(found.grades, len(found.documents), found.own)
    metrics = ", ".join(f"{name} {value:.3f}" for name, value in chance.items())
    return f"{split}: {_size(found)}; documents in a random order have {metrics}"


class PairEvaluator:
    """Evaluates parameters on the splits of a `PairsTask`, with one compiled function."""

    def __init__(
        self,
        task: PairsTask,
        config: Experiment,
        objective: ContrastiveObjective,
        steps: CompiledSteps,
        mesh: jax.sharding.Mesh,
    ) -> None:
        self.task, self.config = task, config
        self._objective, self._steps = objective.config, steps
        self._slices = sharding.process_slices(mesh)
        self._retrieval: dict[str, RetrievalSet] = {}  # of each split without scores
        self.notes: list[str] = []  # what is unusual in the splits that were evaluated

        def apply(params: Any, batch: Batch) -> Any:
            return batch["row"], objective.vectors(params, batch)

        self._apply = jax.jit(
            sharding.with_mesh(mesh, apply), out_shardings=sharding.replicated(mesh)
        )

    def dev_scores(self, params: Any) -> dict[str, float]:
        """The metrics on dev."""
        data = self.task.dataset.splits["dev"]
        if self._is_scored(data):
            return self._scored(params, data, "dev")[0]
        return self._rank(params, "dev")[0]

    def evaluate(self, params: Any, split: str) -> tuple[dict[str, float], list[dict[str, Any]]]:
        """The metrics of a split, and a prediction for each query or scored pair."""
        data = self.task.dataset.splits[split]
        if self._is_scored(data):
            return self._scored(params, data, split)
        metrics, queries, documents = self._rank(params, split)
        found = self._retrieval[split]
        hits = retrieval.hits_without(queries, documents, TOP_DOCUMENTS, found.own)
        predictions = [
            {"id": id, "documents": [found.document_ids[n] for n in numbers], "scores": scores}
            for id, (numbers, scores) in zip(found.query_ids, hits, strict=True)
        ]
        return metrics, predictions

    def _is_scored(self, data: Split) -> TypeGuard[list[Pair]]:
        return isinstance(data, list) and self.task.dataset.scored

    def _rank(self, params: Any, split: str) -> tuple[dict[str, float], np.ndarray, np.ndarray]:
        """The metrics of a split without scores, and its vectors of queries and documents."""
        if split not in self._retrieval:
            data = self.task.dataset.splits[split]
            self._retrieval[split] = _as_retrieval_set(data, self.task.tokenizer)
            self._add_note(_random_order(split, self._retrieval[split]))
        found = self._retrieval[split]
        prompts = self._objective.query_prompt, self._objective.document_prompt
        queries = self._vectors(params, found.queries, prompts[0], f"{split}: queries")
        documents = self._vectors(params, found.documents, prompts[1], f"{split}: documents")
        judged = retrieval.rank_judged(queries, documents, found.grades, found.own)
        return retrieval.ranking_metrics(judged), queries, documents

    def _add_note(self, note: str) -> None:
        if note not in self.notes:
            self.notes.append(note)
            logger.info(note)

    def _scored(
        self, params: Any, data: Sequence[Pair], split: str
    ) -> tuple[dict[str, float], list[dict[str, Any]]]:
        o = self._objective
        first, second = [pair.text for pair in data], [pair.positive for pair in data]
        a = self._vectors(params, first, o.query_prompt, f"{split}: first texts")
        b = self._vectors(params, second, o.document_prompt, f"{split}: second texts")
        lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
        cosine = (a * b).sum(1) / np.maximum(lengths, 1e-12)
        scores = np.array([pair.score for pair in data], np.float64)
        metrics = correlations(np.stack([scores, cosine], axis=1).astype(np.float64))
        return metrics, [{"score": float(x)} for x in cosine]

    def _vectors(self, params: Any, texts: Sequence[str], prompt: str, name: str) -> np.ndarray:
        """The vectors [n d] of texts after the prompt; `name` of the texts, for notes."""
        length, params = self.config.data.length, self._steps.network_params(params)
        assert length is not None
        rows, cut = encode_pairs.encode_texts(texts, self.task.tokenizer, length, prompt)
        note = f"{name} longer than {length} tokens, truncated: {cut} of {len(set(texts))}"
        if cut:
            self._add_note(note)
        batches = LabeledBatches(
            rows,
            self.config.data.batch_size // self.config.optim.accumulate,
            self.config.encoder.pad_id,
            parts=self._slices,
        )

        def apply(batch: Batch) -> tuple[Any, Any]:
            return self._apply(params, self._steps.to_devices(batch))

        return np.stack(batches.predict_all(apply, per_token=False))
