"""Commands that use a model: `predict`, `fill`, `probe`, `inspect`."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from tyro.conf import Positional, arg

from bert_jax.cli.command import Command, Extra, Model, layer_numbers, optional
from bert_jax.cli.configs import is_config, load_config_or_model
from bert_jax.config import GlueTask, TaskType

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Predict(Command):
    """Apply a fine-tuned model to new rows: JSONL in, JSONL out, in the same order.

    Example: bert-jax predict runs/finetune new.jsonl --out predictions.jsonl
    """

    # Run folder of fine-tuning, its export, or the name of that on the Hub.
    model: Annotated[Positional[str], arg(metavar="MODEL")]
    # File of rows as for finetune, without labels; or a SQuAD .json file.
    input: Annotated[Positional[str], arg(metavar="INPUT")]
    # New file for the predictions.
    out: Annotated[str, arg(metavar="FILE")]

    def run(self, extra: list[str]) -> int:
        from bert_jax import load
        from bert_jax.inference.predict import predict_file
        from bert_jax.tasks.qa_windows import MAX_QUESTION_PIECES

        model = load(self.model)
        rows, truncated = predict_file(model, Path(self.input), Path(self.out))
        if truncated and model.task.task_type == "qa":
            logger.warning(
                "%d of %d questions were cut: to at most %d pieces, and further in rows of few "
                "tokens, which here have %d",
                *(truncated, rows, MAX_QUESTION_PIECES, model.row_length),
            )
        elif truncated:
            logger.warning(
                "%d of %d texts were cut, since rows have %d tokens",
                *(truncated, rows, model.row_length),
            )
        print(f"predictions for {rows} rows in {self.out}")
        return 0


@dataclass(frozen=True)
class Fill(Command):
    """Fill the mask tokens of a text.

    Example: bert-jax fill runs/demo "We will [MASK] our freedom."
    """

    texts: ClassVar[tuple[str, ...]] = ("text",)

    model: Model
    # Text with the model's mask token, such as [MASK] or <mask>.
    text: Annotated[Positional[str], arg(metavar="TEXT")]
    # Number of tokens to show per mask.
    top: Annotated[int, arg(metavar="K")] = 5
    # Print one JSON list per mask: the text, vocabulary entry and probability of each token.
    json: bool = False

    def run(self, extra: list[str]) -> int:
        from bert_jax import load

        model = load(self.model)
        text = model.tokenizer.piece_text
        for i, tokens in enumerate(model.fill(self.text, top=self.top), 1):
            if self.json:
                row = [{"text": text(t), "token": t, "probability": p} for t, p in tokens]
                print(json.dumps(row, ensure_ascii=False))
            else:
                print(f"mask {i}: " + "  ".join(f"{text(t)} {p:.3f}" for t, p in tokens))
        return 0


@dataclass(frozen=True)
class Probe(Command):
    """Find the layer that suits a task: train a linear model on each layer, and score it on dev.

    Example: bert-jax probe runs/demo --task tagging --data ner --out probed
    """

    model: Model
    # Type of the task (tagging or classification), or the name of a GLUE task.
    task: Annotated[TaskType | GlueTask, arg(metavar="KIND")]
    # Folder of the task's data, as for finetune.
    data: Annotated[str, arg(metavar="DIR")]
    # New folder for the scores and their plot.
    out: Annotated[str, arg(metavar="DIR")]
    # Layers such as words,0,6,12; the default is all of them.
    layers: Annotated[str | None, optional("LAYERS")] = None
    # Way to pool tokens; the default is to try both ways that suit the task.
    pool: Literal["mean", "cls", "first"] | None = None
    # Maximum number of training rows and of dev rows; 0 means all.
    rows: Annotated[int, arg(metavar="N")] = 2000
    # Seed that draws the rows.
    seed: Annotated[int, arg(metavar="N")] = 0

    def run(self, extra: list[str]) -> int:
        from bert_jax import load
        from bert_jax.inference.probe import probe_layers, render_probe

        names = self.layers.split(",") if self.layers else ()
        result = probe_layers(
            load(self.model),
            self.task,
            self.data,
            Path(self.out),
            layers=[n if n == "words" else layer_numbers(n)[0] for n in names],
            pools=(self.pool,) if self.pool else (),
            rows=self.rows,
            seed=self.seed,
            name=self.model,
        )
        print(render_probe(result))
        print(f"probe: {self.out}")
        return 0


@dataclass(frozen=True)
class Inspect(Command):
    """Show the parameter table of a config or a model: name, shape, count, sharding.

    With --data.path or --data.mix, the vocabulary of a config is that of the corpus.

    Example: bert-jax inspect configs/bert_base.py --json
    """

    extra: ClassVar[Extra] = "config"

    # Config file or name, run folder, imported folder, Hugging Face folder, or a name on the Hub.
    target: Annotated[Positional[str], arg(metavar="CONFIG|MODEL")]
    # Print one JSON object.
    json: bool = False

    def run(self, extra: list[str]) -> int:
        from bert_jax.perf.param_table import parameter_table, render_param_table

        config = load_config_or_model(self.target, extra, "inspect")
        # A run's config holds the vocabulary already, and its corpus may be gone.
        if is_config(self.target) and (config.data.path or config.data.mix):
            from bert_jax.training.assemble import open_data

            config = open_data(config).config
        table = parameter_table(config)
        print(json.dumps(table) if self.json else render_param_table(table))
        return 0
