"""Load a trained model and use it: fill masks, compute features of any layer, predict a task."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from bert_jax import config, convert, objectives, tasks
from bert_jax.checkpoint import manager
from bert_jax.config import Contrastive, Experiment, Supervised
from bert_jax.data.labeled import LabeledBatches
from bert_jax.data.tokenization import tokenizer as tokenizers
from bert_jax.data.tokenization.tokenizer import Tokenizer
from bert_jax.inference import adapter, features, model_summary
from bert_jax.inference.adapter import Adapter
from bert_jax.inference.features import Layers, Pool
from bert_jax.inference.fill import fill_masks
from bert_jax.inference.long_features import LongPool, check_long, text_vectors
from bert_jax.inference.sentence_vectors import finish_vectors, similarity, tokenize_texts
from bert_jax.tasks import results
from bert_jax.utils import hub
from bert_jax.utils.types import Batch

PREDICT_BATCH_SIZE = 32  # rows per batch of `predict`


def load(path: str | Path) -> Model:
    """The model of a run folder, imported folder or Hugging Face folder, or of a name on the
    Hugging Face Hub (`OWNER/NAME`, `hf:NAME@REVISION`; a `Path` is never taken as a name). Of a run
    the newest checkpoint is loaded; of a finished fine-tuning run the best one, which
    `results.json` names.

    ValueError: the folder is missing or is none of these, has no checkpoint, lacks the best one,
    or has damaged weights; a name that cannot be downloaded (`hub.model_folder`).
    """
    source = hub.model_folder(path)
    model = _load_folder(source.path)
    if source.commit is None:
        return model
    origin = dict(init=source.name, init_commit=source.commit)
    return replace(model, config=config.replace(model.config, run=origin))


def _load_folder(path: Path) -> Model:
    folder = convert.encoder_folder(path)
    if not convert.is_model_folder(folder):
        seeds = f"; it has several seeds, choose one such as {folder / 'seed_0'}"
        hint = seeds if (folder / "seed_0").is_dir() else ""
        raise ValueError(
            f"{folder} has no config.json: expected a run or Hugging Face folder{hint}"
        )
    if convert.is_hf_folder(folder):
        head = convert.read_sentence_head(path)
        experiment, params, tokenizer_dir = convert.read_hf_folder(folder)
        tokenizer = tokenizers.load_tokenizer(tokenizer_dir)
        convert.check_tokenizer(experiment, tokenizer)
        weights = jax.tree.map(jnp.asarray, params)
        return Model(experiment, weights, tokenizer, folder=tokenizer_dir, sentence=head)
    experiment = config.read_config(folder / "config.json")
    tokenizer = tokenizers.load_tokenizer(folder / "tokenizer")
    finetuned = isinstance(experiment.objective, Supervised | Contrastive)
    finetune_results = results.read_results(folder) if finetuned else None
    checkpoints = manager.Checkpoints(folder / "checkpoints", read_only=True)
    step = checkpoints.newest()
    if step is None:
        raise ValueError(f"{folder} has no checkpoint yet: train it first")
    if finetune_results is not None:
        step = results.best_step(folder, finetune_results, checkpoints.steps())
    checkpoints.check_encoder(step, experiment, folder / "config.json")
    read = partial(checkpoints.restore_params, step)
    experiment, params, adapted = adapter.read_run(experiment, read, load)
    if finetune_results is not None:
        experiment = _with_thresholds(experiment, finetune_results)
    head = convert.sentence_head(folder, experiment)
    return Model(experiment, params, tokenizer, step, folder, head, adapted)


def _with_thresholds(experiment: Experiment, finished: results.Results) -> Experiment:
    """The thresholds that were best on dev are part of the model."""
    chosen: dict[str, Any] = {}
    if "thresholds" in finished:
        chosen["thresholds"] = tuple(finished["thresholds"].values())
    if "threshold" in finished:
        chosen["no_answer_threshold"] = finished["threshold"]
    return config.replace(experiment, objective=chosen) if chosen else experiment


@dataclass(frozen=True)
class Model:
    """A trained model: its config, its parameters, and its tokenizer."""

    config: Experiment
    params: dict[str, Any]
    tokenizer: Tokenizer
    step: int = 0
    folder: Path | None = None  # that it was loaded from; of a name on the Hub, in its cache
    sentence: convert.SentenceHead | None = None  # how it makes sentence vectors
    adapter: Adapter | None = None  # of a run with adapters; `params` are merged with the base

    def _repr_html_(self) -> str:
        return model_summary.as_html(self)

    @cached_property
    def objective(self) -> objectives.Objective:
        """The objective that it was trained with, for any platform: networks, masking, losses."""
        return objectives.build(config.replace(self.config, run=dict(attention="auto")))

    @cached_property
    def mask_logits(self) -> Any:
        """(params, batch) -> logits [b p v] at the `masked` positions [b p] of a batch, of the
        tokenizer's pieces alone: a table may have more rows."""
        network, _ = self.objective.mask_filler(self.params)
        pieces = self.tokenizer.vocab_size

        def f(params: Any, batch: dict[str, jax.Array]) -> jax.Array:
            out: Any = network.apply({"params": params}, batch)
            return out["mlm"].logits(params["embeddings"]["word"])[..., :pieces]

        return jax.jit(f)

    @cached_property
    def mask_losses(self) -> Any:
        """(params, batch) -> at the `masked` positions [b p] of a batch, -log p of the `targets`
        [b p] in nat, and how many tokens are more likely; both [b p]. The softmax is over the
        whole table, as in training (`eval_mask_loss`) and in transformers."""
        network, _ = self.objective.mask_filler(self.params)

        def f(params: Any, batch: dict[str, jax.Array]) -> tuple[jax.Array, jax.Array]:
            out: Any = network.apply({"params": params}, batch)
            logits = out["mlm"].logits(params["embeddings"]["word"])
            target = jnp.take_along_axis(logits, batch["targets"][..., None], axis=-1)
            loss = jax.nn.logsumexp(logits, axis=-1) - target[..., 0]
            return loss, (logits > target).sum(-1)

        return jax.jit(f)

    @cached_property
    def _features(self) -> Any:
        network, _ = self.objective.encoder(self.params)
        return features.compile_features(network, self.sentence)

    @cached_property
    def _task_outputs(self) -> Any:
        """(params, batch) -> the outputs of the fine-tuned head for every row."""
        assert isinstance(self.objective, objectives.SupervisedObjective)
        return jax.jit(self.objective.outputs)

    @property
    def default_pool(self) -> Pool:
        """The pool of `encode` if none is given."""
        return "mean" if self.sentence is None else "sentence"

    @property
    def similarity_function(self) -> str:
        """How its vectors are compared: by the cosine, or as the sentence head says."""
        return "cosine" if self.sentence is None else self.sentence.similarity

    @property
    def fills_masks(self) -> bool:
        """Whether it has a masked-word head."""
        network, _ = self.objective.mask_filler(self.params)
        return "mlm" in network.heads

    def max_tokens(self, pool: Pool) -> int:
        """Most tokens of a text: the encoder's length, or less if the sentence head says so."""
        most, head = self.config.encoder.max_length, self.sentence
        if pool != "sentence" or head is None:
            return most
        return min(most, head.max_length or most)

    @property
    def task(self) -> Supervised:
        """The objective that it was fine-tuned for. ValueError: it was not fine-tuned."""
        if not isinstance(self.config.objective, Supervised):
            hint = "fine-tune it first (bert-jax finetune), or use its vectors (bert-jax embed)"
            raise ValueError(f"the model has no head for a task: {hint}")
        return self.config.objective

    @property
    def row_length(self) -> int:
        """Tokens per row of its task."""
        return self.config.row_length

    def encode_examples(self, examples: Sequence[tasks.Example]) -> tasks.EncodedExamples:
        """Rows as in training, of `row_length` tokens."""
        return tasks.encode_for(self.task, examples, self.tokenizer, self.row_length)

    def outputs(self, rows: Sequence[dict[str, Any]]) -> list[Any]:
        """The head's outputs for every row of `encode_examples` (tasks/__init__.py). ValueError:
        one is not a number."""
        batches = LabeledBatches(rows, PREDICT_BATCH_SIZE, self.config.encoder.pad_id)

        def apply(batch: Batch) -> tuple[Any, Any]:
            return batch["row"], self._task_outputs(self.params, batch)

        outputs = batches.predict_all(apply, self.task.per_token)
        features.refuse_nan(outputs)
        return outputs

    def predict(self, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """The predictions of a fine-tuned model for rows in the format that `finetune` reads, in
        their order. Labels are ignored. `tasks.decode_predictions` lists the fields.

        ValueError: a model that is not fine-tuned, a row that lacks a field.
        """
        task_type = self.task.task_type
        examples = [
            tasks.parse_unlabeled_example(
                task_type, row, tasks.Location("rows", f"row {i}"), self.task.pairs
            )
            for i, row in enumerate(rows)
        ]
        return self.predict_examples(self.encode_examples(examples))

    def predict_examples(self, encoded: tasks.EncodedExamples) -> list[dict[str, Any]]:
        """`predict` for rows that `encode_examples` has encoded."""
        outputs = self.outputs(encoded.rows) if encoded.rows else []
        task = self.task
        return tasks.decode_predictions(
            encoded, outputs, task.labels, task.no_answer_threshold, task.thresholds
        )

    def fill(self, text: str, top: int = 5) -> list[list[tuple[str, float]]]:
        """For each mask token of the text, in order, the `top` most likely tokens and their
        probabilities. ELECTRA uses its generator.

        ValueError: no mask token, a text that is too long, a model without a masked-word head.
        """
        if not self.fills_masks:
            raise ValueError("the model has no masked-word head: it can only compute features")
        _, params = self.objective.mask_filler(self.params)
        logits_of = partial(self.mask_logits, params)
        return fill_masks(logits_of, self.tokenizer, self.config.encoder, text, top)

    def encode(
        self,
        texts: Sequence[str],
        layers: Layers = (-1,),
        pool: Pool | Literal["default"] = "default",
        truncate: bool = False,
        *,
        normalize: bool = False,
        prompt: str | None = None,
        dimensions: int | None = None,
        long: LongPool = None,
        batch_tokens: int | None = None,
    ) -> Any:
        """Features of every text (a list, an array or a column of strings), float32.

            pool      result
            default   `sentence` for a model that has a sentence head, else `mean`
            sentence  [1, texts, m]      the sentence head's vectors, of the last layer
            mean      [layers, texts, d]  the mean over a text's tokens, with [CLS] and [SEP]
            cls       [layers, texts, d]  the first token
            words     per text [layers, words, d]: a vector for each of text.split(), the mean of
                      its pieces, without special tokens
            None      per text [layers, tokens, d]

        Layer 0 is the input of the first layer, i the output of layer i; negative numbers count
        from the end. `layers="words"` gives the rows of the embedding table, as one layer.
        ELECTRA uses its discriminator. A text's features do not depend on the other texts: every
        batch has as many tokens, 512 on a CPU. `batch_tokens=1` is faster for one short text and
        slower for many; its vectors differ from the default's in the last bits.

        Models with a sentence head come from sentence-transformers. `prompt` is put before every
        text: a name among the head's prompts, `query` or `document`, or else the text itself; None
        is the head's default prompt with `sentence`, and no prompt with another pool. `dimensions`
        keeps the first features (Matryoshka); `normalize` then scales vectors to length 1.

        With `pool="words"` white space between words counts as one space (it matters for byte-level
        BPE only). Words after the cut of `truncate` have no vector. `long="mean"` averages windows.

        ValueError: a missing layer or head, a text that is too long unless `truncate` or `long`.
        """
        texts = features.as_texts(texts)
        pool = self.default_pool if pool == "default" else pool
        check_long(long, pool, truncate)
        rows = self.tokenize(texts, pool, truncate, prompt, long)
        compute = partial(self.iter_features, layers=layers, pool=pool, batch_tokens=batch_tokens)
        max_length = None if long is None else self.max_tokens(pool)
        vectors = text_vectors(compute, rows, pool, self.sentence, max_length)
        out = [finish_vectors(x, dimensions, normalize) for x in vectors]
        return np.stack(out, axis=1) if pool in features.ONE_VECTOR else out

    def similarity(self, a: Any, b: Any) -> np.ndarray:
        """The similarity [n, m] of n and m texts, or of their vectors as `encode` returns them:
        the cosine, or what the sentence head names. Larger means more similar."""
        a, b = (list(x) if isinstance(x, Iterator) else x for x in (a, b))
        a, b = (
            self.encode(x) if isinstance(x, str) or isinstance(next(iter(x), ""), str) else x
            for x in (a, b)
        )
        return similarity(a, b, self.similarity_function)

    def tokenize(
        self,
        texts: Sequence[str],
        pool: Pool = "mean",
        truncate: bool = False,
        prompt: str | None = None,
        long: LongPool = None,
    ) -> list[features.FeatureRow]:
        """Each text as a row of tokens, as `encode` reads it, not yet split. ValueError: a text
        that is too long, unless `truncate` or `long`; a prompt with word vectors."""
        max_length = self.max_tokens(pool)
        rows = tokenize_texts(self.tokenizer, texts, pool, self.sentence, prompt)
        if truncate:
            return [features.truncate_row(row, max_length) for row in rows]
        for text, row in zip(texts, rows, strict=True) if long is None else ():
            features.check_length(text, row.tokens, max_length)
        return rows

    def iter_features(
        self,
        rows: Sequence[features.FeatureRow],
        layers: Layers = (-1,),
        pool: Pool = "mean",
        batch_tokens: int | None = None,
    ) -> Iterator[tuple[int, np.ndarray]]:
        """Each row's index and features, in order of length; two batches at most are in memory."""
        features.check_pool(pool)
        last = self.config.encoder.layers
        numbers = features.resolve_layers(layers, last)
        if pool == "sentence":
            features.check_sentence(self.sentence, layers, numbers == (last,))
        _, params = self.objective.encoder(self.params)
        return features.compute_features(
            self._features, params, rows, self.config.encoder, numbers, pool, batch_tokens
        )
