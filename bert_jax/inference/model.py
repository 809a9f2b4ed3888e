"""A trained model in use: filled masks, features from any layer, answers to a task."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bert_jax import config, convert, objectives, tasks
from bert_jax.checkpoint import manager
from bert_jax.config import Experiment, Supervised
from bert_jax.data.labeled import LabeledBatches
from bert_jax.data.tokenization import tokenizer as tokenizers
from bert_jax.data.tokenization.tokenizer import Tokenizer
from bert_jax.inference import features
from bert_jax.inference.features import Layers, Pool
from bert_jax.tasks import results
from bert_jax.utils import pytree
from bert_jax.utils.types import Batch

PREDICT_BATCH_SIZE = 32  # computed together by `predict`


def load(path: str | Path) -> Model:
    """The model of a run folder, of an imported folder, or of a Hugging Face folder. A run gives
    its newest checkpoint; one of fine-tuning that has finished the best, as `results.json` says.

    ValueError: no such folder, none of these, no checkpoint in it yet, the best one gone, damaged
    weights.
    """
    folder = Path(path)
    if not (folder / "config.json").is_file():
        seeds = f"; it holds several seeds: name one, {folder / 'seed_0'}"
        more = seeds if (folder / "seed_0").is_dir() else ""
        raise ValueError(
            f"{folder} holds no config.json: expected a run or Hugging Face folder{more}"
        )
    if convert.is_hf_folder(folder):
        experiment, params, beside = convert.read_hf_folder(folder)
        tokenizer = tokenizers.load_tokenizer(beside)
        convert.check_tokenizer(experiment, tokenizer)
        return Model(experiment, jax.tree.map(jnp.asarray, params), tokenizer)
    experiment = config.read_config(folder / "config.json")
    tokenizer = tokenizers.load_tokenizer(folder / "tokenizer")
    found = results.read_results(folder) if isinstance(experiment.objective, Supervised) else None
    checkpoints = manager.Checkpoints(folder / "checkpoints", read_only=True)
    step = checkpoints.newest()
    if step is None:
        raise ValueError(f"{folder} holds no checkpoint yet: train it first")
    if found is not None:
        step = _best_step(folder, found, checkpoints.steps())
    like = jax.eval_shape(objectives.build(experiment).init, jax.random.key(0))
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    shapes = pytree.abstract(like, jax.tree.map(lambda _: here, like))
    params = checkpoints.restore_params(step, shapes)
    threshold = 0.0 if found is None else found.get("threshold", 0.0)
    return Model(experiment, params, tokenizer, step, threshold)


def _best_step(folder: Path, finetune_results: results.Results, steps: Sequence[int]) -> int:
    """The checkpoint that `results.json` describes. ValueError: it is missing; the best of the
    remaining checkpoints may be another."""
    best = finetune_results.get("best_step")
    if best is None or best not in steps:
        raise ValueError(
            f"{folder / results.RESULTS_FILE} refers to checkpoint {best}, which is missing (found "
            f"{', '.join(map(str, steps))}): restore it from a copy, or remove "
            f"{results.RESULTS_FILE} and run finetune again"
        )
    return int(best)


@dataclass(frozen=True)
class Model:
    """A trained model: what it was, what it learned, and its tokenizer."""

    config: Experiment
    params: dict[str, Any]
    tokenizer: Tokenizer
    step: int = 0
    threshold: float = 0.0  # of no answer, for questions: the best on dev

    @cached_property
    def objective(self) -> objectives.Objective:
        # The backend of attention that the run had may not exist here.
        return objectives.build(config.replace(self.config, run=dict(attention="auto")))

    @cached_property
    def _logits(self) -> Any:
        """(params, batch) -> [b p v] at the masked positions."""
        network, _ = self.objective.mask_filler(self.params)

        def f(params: Any, batch: dict[str, jax.Array]) -> jax.Array:
            out: Any = network.apply({"params": params}, batch)
            head = out["mlm"]
            return head.logits(params["embeddings"]["word"])

        return jax.jit(f)

    @cached_property
    def _features(self) -> Any:
        network, _ = self.objective.encoder(self.params)
        return features.compile_features(network)

    @cached_property
    def _answers(self) -> Any:
        """(params, batch) -> what a head of fine-tuning says of every row."""
        assert isinstance(self.objective, objectives.SupervisedObjective)
        return jax.jit(self.objective.outputs)

    @property
    def task(self) -> Supervised:
        """What it was fine-tuned for. ValueError: it was not."""
        if not isinstance(self.config.objective, Supervised):
            raise ValueError(
                "the model has no head for a task: fine-tune it first (bert-jax finetune)"
            )
        return self.config.objective

    def encode_examples(self, examples: Sequence[tasks.Example]) -> tasks.EncodedExamples:
        """Rows as the model was trained on: of `data.length` tokens, else as the task's kind
        has them."""
        task, most = self.task, self.config.encoder.max_length
        length = self.config.data.length or min(task.default_length, most)
        labels, family = task.labels, task.family
        return tasks.encode_examples(
            task.task_type, examples, self.tokenizer, length, labels, family=family
        )

    def outputs(self, rows: Sequence[dict[str, Any]]) -> list[Any]:
        """What the head says of every row of `encode_examples`; see tasks/__init__.py."""
        batches = LabeledBatches(rows, PREDICT_BATCH_SIZE, self.config.encoder.pad_id)

        def apply(batch: Batch) -> tuple[Any, Any]:
            return batch["row"], jax.device_get(self._answers(self.params, batch))

        return batches.predict_all(apply, self.task.per_token)

    def predict(self, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """What a fine-tuned model says of rows such as `finetune` reads, in their order; labels
        in them are not looked at.

        ValueError: a model that was not fine-tuned, a row that lacks a field.
        """
        places = (tasks.Location("rows", f"row {i}") for i in range(len(rows)))
        kind = self.task.task_type
        examples = [
            tasks.parse_unlabeled_example(kind, r, at) for r, at in zip(rows, places, strict=True)
        ]
        return self.predict_examples(self.encode_examples(examples))

    def predict_examples(self, encoded: tasks.EncodedExamples) -> list[dict[str, Any]]:
        outputs = self.outputs(encoded.rows) if encoded.rows else []
        task = self.task
        return tasks.decode_predictions(task.task, encoded, outputs, task.labels, self.threshold)

    def fill(self, text: str, top: int = 5) -> list[list[tuple[str, float]]]:
        """For each mask token of the text, in order, the `top` likeliest tokens and their
        probabilities. ELECTRA answers with its generator.

        ValueError: no mask token, a text longer than the model, no masked-word head.
        """
        network, params = self.objective.mask_filler(self.params)
        if "mlm" not in network.heads:
            raise ValueError("the model has no masked-word head: it gives features only")
        if top < 1:
            raise ValueError(f"top is {top}: expected at least 1")
        tokens, _ = self.tokenizer.build_row(self.tokenizer.encode_with_masks(text))
        self._check_length(text, tokens)
        masks = np.flatnonzero(np.array(tokens) == self.tokenizer.mask_id)
        if not len(masks):
            raise ValueError(f"the text has no {self.tokenizer.mask_token}: put one in its place")
        row = features.FeatureRow(np.array(tokens), len(tokens))
        encoder = self.config.encoder
        length = features.padded_length(len(tokens), encoder.max_length)
        batch = features.collate([row], length, 1, encoder.pad_id)
        logits = self._logits(params, {**batch, "masked": masks[None]})[0]
        logits = logits[:, : self.tokenizer.vocab_size]  # a table may be padded to a round size
        probabilities, ids = jax.lax.top_k(jax.nn.softmax(logits), min(top, logits.shape[-1]))
        return [
            [(self.tokenizer.token(int(i)), float(p)) for i, p in zip(row, ps, strict=True)]
            for row, ps in zip(np.asarray(ids), np.asarray(probabilities), strict=True)
        ]

    def encode(
        self,
        texts: Sequence[str],
        layers: Layers = (-1,),
        pool: Pool = "mean",
        truncate: bool = False,
    ) -> Any:
        """Features of every text, float32.

            pool     gives
            mean     [layers, texts, d]  the mean over a text's tokens, [CLS] and [SEP] included
            cls      [layers, texts, d]  the first token
            words    per text [layers, words, d]: a vector for each of text.split(), the mean of
                     its pieces, without special tokens
            None     per text [layers, tokens, d]

        Layer 0 is what enters the first layer, i the output of layer i; negative numbers count
        from the end. `layers="words"` gives the rows of the word table alone, as one layer.
        ELECTRA answers with its discriminator. A text's numbers do not depend on the others.

        With `pool="words"` any space between two words counts as one; only byte-level BPE could
        tell. With `truncate` words that begin behind the cut have no vector.

        ValueError: a layer that is not there, a text longer than the model unless `truncate`.
        """
        if not texts:
            raise ValueError("no texts: expected at least one")
        if isinstance(texts, str):
            raise ValueError("texts is one string: expected a list of texts")
        rows = self.rows(texts, words=pool == "words", truncate=truncate)
        out: list[Any] = [None] * len(rows)
        for i, x in self.encode_rows(rows, layers, pool):
            out[i] = x
        return np.stack(out, axis=1) if pool in ("mean", "cls") else out

    def rows(
        self, texts: Sequence[str], words: bool = False, truncate: bool = False
    ) -> list[features.FeatureRow]:
        """What the encoder reads of each text. ValueError: too long, unless `truncate`."""
        if words:
            rows = features.word_rows(self.tokenizer, [t.split() for t in texts])
        else:
            rows = features.text_rows(self.tokenizer, texts)
        if truncate:
            return [features.truncate_row(row, self.config.encoder.max_length) for row in rows]
        for text, row in zip(texts, rows, strict=True):
            self._check_length(text, row.tokens)
        return rows

    def encode_rows(
        self, rows: Sequence[features.FeatureRow], layers: Layers = (-1,), pool: Pool = "mean"
    ) -> Iterator[tuple[int, np.ndarray]]:
        """The number and the features of each row, as `encode` gives them, as they come: the
        rows are sorted by length, and no more than two batches are held."""
        features.check_pool(pool)
        numbers = features.resolve_layers(layers, self.config.encoder.layers)
        _, params = self.objective.encoder(self.params)
        return features.compute_features(
            self._features, params, rows, self.config.encoder, numbers, pool
        )

    def _check_length(self, text: str, ids: Any) -> None:
        most = self.config.encoder.max_length
        if len(ids) > most:
            raise ValueError(
                f"a text has {len(ids)} tokens, the model takes {most} "
                f"({text[:40]!r}...): shorten it, or pass truncate"
            )
