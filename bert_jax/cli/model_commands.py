"""Commands that use a model: `predict`, `fill`, `embed`, `probe`, `import`, `export`, `inspect`."""

from __future__ import annotations

import json
import logging
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from tyro.conf import Positional, arg

from bert_jax.cli.command import MODEL, Command, Extra, optional
from bert_jax.cli.configs import load_config_or_model
from bert_jax.config import GlueTask, TaskType

logger = logging.getLogger(__name__)

Model = Annotated[Positional[str], arg(metavar="MODEL", help=MODEL)]


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

        rows, truncated = predict_file(load(self.model), Path(self.input), Path(self.out))
        if truncated:
            logger.warning("%d of %d texts were longer than the model and cut", truncated, rows)
        print(f"predictions for {rows} rows in {self.out}")
        return 0


@dataclass(frozen=True)
class Fill(Command):
    """Fill the mask tokens of a text.

    Example: bert-jax fill runs/demo "We will [MASK] our freedom."
    """

    model: Model
    # Text with the model's mask token, such as [MASK] or <mask>.
    text: Annotated[Positional[str], arg(metavar="TEXT")]
    # Number of tokens to show per mask.
    top: Annotated[int, arg(metavar="K")] = 5

    def run(self, extra: list[str]) -> int:
        from bert_jax import load

        for i, tokens in enumerate(load(self.model).fill(self.text, top=self.top), 1):
            print(f"mask {i}: " + "  ".join(f"{token} {p:.3f}" for token, p in tokens))
        return 0


@dataclass(frozen=True)
class Embed(Command):
    """Write features of every line of a file, from any layer.

    Example: bert-jax embed runs/demo texts.txt --layers 0,2,4 --pool mean --out features.npz
    """

    model: Model
    # File with one text per line.
    file: Annotated[Positional[str], arg(metavar="FILE")]
    # New .npz file for the features.
    out: Annotated[str, arg(metavar="FILE.npz")]
    # Layers such as 0,6,12; negative numbers count from the end, and `words` is the word embedding
    # table.
    layers: Annotated[str, arg(metavar="LAYERS")] = "-1"
    # Vectors to write: one per text (`mean` over tokens, or `cls`, the first token), one per word
    # (`words`), or one per token (`none`).
    pool: Literal["mean", "cls", "words", "none"] = "mean"
    # Cut texts that are longer than the model takes.
    truncate: bool = False

    def run(self, extra: list[str]) -> int:
        from bert_jax import load
        from bert_jax.inference.embed_file import embed_file

        layers = "words" if self.layers == "words" else _layer_numbers(self.layers)
        pool = None if self.pool == "none" else self.pool
        out = Path(self.out)
        count = embed_file(load(self.model), Path(self.file), out, layers, pool, self.truncate)
        print(f"features of {count} texts in {out}")
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
            layers=[n if n == "words" else _layer_numbers(n)[0] for n in names],
            pools=(self.pool,) if self.pool else (),
            rows=self.rows,
            seed=self.seed,
            name=self.model,
        )
        print(render_probe(result))
        print(f"probe: {self.out}")
        return 0


@dataclass(frozen=True)
class Import(Command):
    """Import a Hugging Face model, optionally with more words and positions.

    Example: bert-jax import google-bert/bert-base-uncased --out imported --positions 1024
    """

    # Name on the Hugging Face Hub, Hugging Face folder, run folder or imported folder.
    folder: Annotated[Positional[str], arg(metavar="HF_DIR")]
    # New folder for the model.
    out: Annotated[str, arg(metavar="DIR")]
    # Folder or name of an ELECTRA generator; with it, both networks become one model.
    generator: Annotated[str | None, optional("DIR")] = None
    # Folder or name of the tokenizer, if it is not beside the weights.
    tokenizer: Annotated[str | None, optional("DIR")] = None
    # Heads that the model gets, some of mlm,pooler,pair,rtd. Heads that the folder lacks are
    # initialized at random.
    heads: Annotated[str | None, optional("HEADS")] = None
    # Prefixes of tensor names; tensors with one of these prefixes are skipped.
    drop: Annotated[tuple[str, ...], optional("PREFIX...")] = ()
    # Read a .bin file with PyTorch. It does not run code from the file.
    allow_pickle: bool = False
    # Keep upper case. Only for folders with a vocabulary but no tokenizer settings.
    cased: bool = False
    # File of words to add to the vocabulary, one per line.
    add_tokens: Annotated[str | None, optional("FILE")] = None
    # New maximum length of the model. New rows of a learned position table are copies of its rows.
    positions: Annotated[int | None, optional("N")] = None

    def run(self, extra: list[str]) -> int:
        from bert_jax.inference import import_model

        lines = _read_lines(self.add_tokens) if self.add_tokens else ()
        initialized = import_model.import_folder(
            self.folder,
            self.out,
            generator=self.generator,
            tokenizer=self.tokenizer,
            heads=self.heads.split(",") if self.heads else (),
            drop=self.drop,
            allow_pickle=self.allow_pickle,
            cased=self.cased,
            words=[line.strip() for line in lines if line.strip()],
            positions=self.positions,
        )
        for name in initialized:
            print(f"initialized at random: {name}")
        print(f"imported folder: {self.out}")
        return 0


@dataclass(frozen=True)
class Export(Command):
    """Export a model to Hugging Face, to an Orbax tree, or to a portable StableHLO function.

    With --push, a Hugging Face folder is also uploaded to the Hub, with its model card.

    Example: bert-jax export runs/demo --format hf --out exported
    """

    model: Model
    # Format of the new folder.
    format: Literal["hf", "orbax", "stablehlo"]
    # New folder for the exported model; it may be left out with --push.
    out: Annotated[str | None, optional("DIR")] = None
    # ELECTRA only: network to export.
    part: Literal["discriminator", "generator"] | None = None
    # Repository of the Hugging Face Hub to upload to (format hf). It is made if there is none.
    push: Annotated[str | None, optional("OWNER/NAME")] = None
    # With --push: replace files that the repository has already.
    force: bool = False
    # With --push: make the repository private, if it is new.
    private: bool = False

    def run(self, extra: list[str]) -> int:
        from bert_jax.convert.export.push import push, push_name

        if self.push is not None and self.format != "hf":
            raise ValueError(
                f"--push uploads a Hugging Face folder: give --format hf, not {self.format}"
            )
        if self.push is None and (self.out is None or self.force or self.private):
            flag = (
                "--out DIR" if self.out is None else "--push OWNER/NAME for --force and --private"
            )
            raise ValueError(f"expected {flag}")
        if self.push is not None:
            push_name(self.push)  # before the work of the export
        with tempfile.TemporaryDirectory() as temporary:
            out = Path(temporary) / "export" if self.out is None else Path(self.out)
            self._export(out)
            if self.push is not None:
                print(f"pushed: {push(out, self.push, self.force, self.private)}")
        return 0

    def _export(self, out: Path) -> None:
        from bert_jax import load
        from bert_jax.convert.export import export_model

        model = load(self.model)
        assert model.folder is not None
        for name in export_model(model, model.folder, self.format, out, self.part):
            print(f"not exported (no equivalent in this format): {name}")
        if self.out is not None:
            print(f"{self.format}: {out}")


@dataclass(frozen=True)
class Inspect(Command):
    """Show the parameter table of a config or a model: name, shape, count, sharding.

    With --data.path or --data.mix, the vocabulary of a config is that of the corpus.

    Example: bert-jax inspect configs/bert_base.py --json
    """

    extra: ClassVar[Extra] = "config"

    # Config file, run folder, imported folder, Hugging Face folder, or a name on the Hub.
    target: Annotated[Positional[str], arg(metavar="CONFIG|MODEL")]
    # Print one JSON object.
    json: bool = False

    def run(self, extra: list[str]) -> int:
        from bert_jax.perf.param_table import parameter_table, render_param_table

        config = load_config_or_model(self.target, extra, "inspect")
        # A run's config holds the vocabulary already, and its corpus may be gone.
        if self.target.endswith(".py") and (config.data.path or config.data.mix):
            from bert_jax.training.assemble import open_data

            config = open_data(config).config
        table = parameter_table(config)
        print(json.dumps(table) if self.json else render_param_table(table))
        return 0


def _layer_numbers(layers: str) -> list[int]:
    try:
        return [int(i) for i in layers.split(",")]
    except ValueError:
        raise ValueError(f"--layers is {layers!r}: expected numbers such as 0,6,12") from None


def _read_lines(path: str) -> list[str]:
    try:
        # Only \n ends a line: a form feed or U+2028 may be part of a text.
        lines = Path(path).read_text(encoding="utf-8").removesuffix("\n").split("\n")
    except (OSError, UnicodeDecodeError) as e:
        raise ValueError(f"{path} cannot be read as UTF-8 text: {e}") from e
    if lines == [""]:
        raise ValueError(f"{path} is empty: expected one text per line")
    return lines
