"""Commands that change a model's format: `import` and `export`."""

from __future__ import annotations

import logging
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from bert_jax.cli.command import Command, Model, optional
from bert_jax.utils import io
from bert_jax.utils.text_lines import read_lines

logger = logging.getLogger(__name__)


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
    # Folder or name of the tokenizer, or of a model that has it, if it is not beside the weights.
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
    # ALBERT only: normalize text as ALBERT's own code does. The default is as transformers 5 does,
    # which also drops marks such as Indic vowel signs.
    albert_original: bool = False
    # File of words to add to the vocabulary, one per line.
    add_tokens: Annotated[str | None, optional("FILE")] = None
    # New maximum length of the model. New rows of a learned position table are copies of its rows.
    positions: Annotated[int | None, optional("N")] = None

    def run(self, extra: list[str]) -> int:
        from bert_jax.inference import import_model

        lines = read_lines(self.add_tokens) if self.add_tokens else ()
        initialized = import_model.import_folder(
            self.folder,
            self.out,
            generator=self.generator,
            tokenizer=self.tokenizer,
            heads=self.heads.split(",") if self.heads else (),
            drop=self.drop,
            allow_pickle=self.allow_pickle,
            cased=self.cased,
            albert_original=self.albert_original,
            words=[line.strip() for line in lines if line.strip()],
            positions=self.positions,
        )
        for name in initialized:
            print(f"initialized at random: {name}")
        print(f"imported folder: {self.out}")
        return 0


@dataclass(frozen=True)
class Export(Command):
    """Export a model to Hugging Face or sentence-transformers, ONNX, Orbax, or portable StableHLO.

    Adapters of a run (lora.rank) are merged into its base, or written alone for peft.

    With --push, a Hugging Face folder is also uploaded to the Hub, with its model card.

    Example: bert-jax export runs/mine --format hf --out exported
    """

    model: Model
    # Format of the new folder.
    format: Literal["hf", "peft", "sentence-transformers", "onnx", "orbax", "stablehlo"]
    # New folder for the exported model; it may be left out with --push.
    out: Annotated[str | None, optional("DIR")] = None
    # ELECTRA only: network to export.
    part: Literal["discriminator", "generator"] | None = None
    # Format peft: name on the Hub, or Hugging Face folder, by which peft finds the base of the
    # adapters. It must be the same model; the default is that of the run.
    base: Annotated[str | None, optional("HF_MODEL")] = None
    # ONNX only: head of the exported network; encoder gives hidden states, sentence vectors of
    # texts. The default is the head of a fine-tuned model, sentence for one that has sentence
    # vectors, else mlm, rtd or encoder.
    head: Literal["encoder", "sentence", "mlm", "rtd", "pair", "task"] | None = None
    # ONNX only: also write model_quantized.onnx, with weights of 8 bits, and compare it with the
    # float32 model on the lines of this text.
    int8: Annotated[str | None, optional("FILE")] = None
    # Repository of the Hugging Face Hub to upload to (formats hf and sentence-transformers). It is
    # made if there is none.
    push: Annotated[str | None, optional("OWNER/NAME")] = None
    # With --push: replace files that the repository has already.
    force: bool = False
    # With --push: make the repository private, if it is new.
    private: bool = False

    def run(self, extra: list[str]) -> int:
        from bert_jax.convert.export import check_onnx
        from bert_jax.convert.export.push import check_push, push

        if self.push is not None and self.format not in ("hf", "sentence-transformers"):
            raise ValueError(
                f"--push uploads a Hugging Face folder: give --format hf, not {self.format}"
            )
        for flag, value in (("--head", self.head), ("--int8", self.int8)):
            if value is not None and self.format != "onnx":
                raise ValueError(f"{flag} is for --format onnx, not {self.format}: leave it out")
        if self.push is None and (self.out is None or self.force or self.private):
            flag = (
                "--out DIR" if self.out is None else "--push OWNER/NAME for --force and --private"
            )
            raise ValueError(f"expected {flag}")
        # what can be known before the model is loaded
        if self.out is not None:
            io.require_new(Path(self.out))
        if self.format == "onnx":
            check_onnx(self.int8)
        if self.push is not None:
            check_push(self.push, self.force)
        with tempfile.TemporaryDirectory() as temporary:
            out = Path(temporary) / "export" if self.out is None else Path(self.out)
            self._export(out)
            if self.push is not None:
                try:
                    address = push(out, self.push, self.force, self.private)
                except ValueError as e:
                    if self.out is None:
                        raise
                    # the same command would refuse the folder that it wrote
                    raise ValueError(f"{e}; remove {out} before you repeat the command") from None
                print(f"pushed: {address}")
        return 0

    def _export(self, out: Path) -> None:
        from bert_jax import load
        from bert_jax.convert.export import OnnxOptions, export_model

        onnx = OnnxOptions(self.head, None if self.int8 is None else Path(self.int8))
        reason = "no equivalent in this format"
        if self.format == "onnx":
            reason = "not used by the head"
        model = load(self.model)
        assert model.folder is not None
        left_out = export_model(model, model.folder, self.format, out, self.part, self.base, onnx)
        for name in left_out:
            print(f"not exported ({reason}): {name}")
        if left_out:
            print(f"{len(left_out)} not exported in all")
        if self.format == "hf":
            logger.info(
                "other readers take special tokens that are written in a text, such as [SEP], for "
                "special tokens; bert_jax takes them for text"
            )
        if self.out is not None:
            print(f"{self.format}: {out}")
