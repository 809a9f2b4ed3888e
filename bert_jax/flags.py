"""The flags of every command, with one example each."""

from __future__ import annotations

import argparse
import sys
from typing import NoReturn

MODEL = "a run folder, an imported folder, or a Hugging Face folder"
TEXT = (
    "files and globs: plain with blank lines between documents, .gz .xz .zst, .jsonl .parquet; "
    "or tfds:NAME/SPLIT"
)
TASKS = (
    *("classification", "regression", "tagging", "choice", "qa"),
    *("cola", "sst2", "mrpc", "stsb", "qqp", "mnli", "qnli", "rte", "wnli"),
)


def parser() -> argparse.ArgumentParser:
    top = _Parser(prog="bert-jax", description="Pre-train and use the BERT family in JAX.")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, says: str, example: str) -> argparse.ArgumentParser:
        epilog = f"example: bert-jax {example}"
        return commands.add_parser(name, help=says, description=says, epilog=epilog)

    p = command(
        "tokenizer",
        "Train a tokenizer; its folder opens in Hugging Face too.",
        "tokenizer data/sample.txt --kind wordpiece --vocab-size 4000 --out tok",
    )
    p.add_argument("text", nargs="+", help=TEXT)
    p.add_argument("--kind", choices=("wordpiece", "unigram", "bpe"), required=True)
    p.add_argument("--vocab-size", type=int, required=True)
    p.add_argument("--out", required=True, help="a new folder")
    p.add_argument("--cased", action="store_true", help="keep case and accents")
    p.add_argument(
        "--sample-mb",
        type=float,
        default=200,
        help="million characters to learn from at most: beyond, lines drawn evenly (200)",
    )
    p.add_argument("--strict", action="store_true", help="refuse bytes that are not UTF-8")

    p = command(
        "prepare",
        "Turn text into a corpus: a TFDS dataset of rows of token ids.",
        "prepare data/sample.txt --tokenizer tok --segments nsp --length 128 --out corpus",
    )
    p.add_argument("text", nargs="+", help=TEXT)
    p.add_argument("--tokenizer", required=True, help="a tokenizer's folder")
    p.add_argument(
        "--segments",
        required=True,
        choices=("nsp", "sop", "electra", "electra_original", "full", "doc", "single"),
    )
    p.add_argument("--length", type=int, required=True, help="tokens per row")
    p.add_argument("--out", required=True, help="a new folder")
    p.add_argument("--workers", type=int, default=1, help="processes; the rows do not depend on it")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--duplicates", type=int, default=1, help="passes over the text, each cut anew")
    p.add_argument(
        "--engine",
        choices=("local", "beam"),
        default="local",
        help="the corpus does not depend on it; other flags go to Beam, as --runner=FlinkRunner",
    )
    p.add_argument("--strict", action="store_true", help="refuse bytes that are not UTF-8")

    p = command(
        "pretrain",
        "Pre-train, or go on where the run folder stopped.",
        "pretrain configs/tiny_bert.py --data.path corpus --run.dir runs/first",
    )
    p.add_argument("config", help="a file of configs/; CONFIG --help lists the fields to change")
    p.add_argument("--init", metavar="MODEL", help="begin with its encoder and parameters")
    _processes(p)

    p = command(
        "finetune",
        "Fine-tune a model on a task's labelled rows, or go on where the run folder stopped.",
        "finetune configs/finetune.py --init runs/demo --task classification --data sentiment",
    )
    p.add_argument("config", help="a file of configs/; CONFIG --help lists the fields to change")
    p.add_argument("--init", required=True, metavar="MODEL", help=MODEL)
    p.add_argument("--task", required=True, choices=TASKS, metavar="KIND", help=" ".join(TASKS))
    p.add_argument(
        "--data",
        required=True,
        help="a folder of train.jsonl, dev.jsonl and perhaps test.jsonl; of train.json, dev.json "
        "(SQuAD); of a GLUE task's TSV files; or tfds:NAME",
    )
    p.add_argument("--seeds", type=int, default=1, help="runs, each in a folder of its own")

    p = command(
        "predict",
        "What a fine-tuned model says of new rows: JSONL in, JSONL out, in the same order.",
        "predict runs/finetune new.jsonl --out predictions.jsonl",
    )
    p.add_argument("model", help="a fine-tuned run folder, or an exported one")
    p.add_argument("input", help="rows as for finetune, without labels; also SQuAD's .json")
    p.add_argument("--out", required=True, help="a new file")

    p = command(
        "fill", "Fill the mask tokens of a text.", 'fill runs/demo "We will [MASK] our freedom."'
    )
    p.add_argument("model", help=MODEL)
    p.add_argument("text")
    p.add_argument("--top", type=int, default=5)

    p = command(
        "embed",
        "Features of every line of a file, from any layer.",
        "embed runs/demo texts.txt --layers 0,2,4 --pool mean --out features.npz",
    )
    p.add_argument("model", help=MODEL)
    p.add_argument("file", help="one text per line")
    p.add_argument("--layers", default="-1", help="0,6,12 or words")
    p.add_argument(
        "--pool",
        choices=("mean", "cls", "words", "none"),
        default="mean",
        help="one vector per text, by mean or first token; per word; per token",
    )
    p.add_argument("--out", required=True, help="a new .npz file")
    p.add_argument("--truncate", action="store_true", help="cut texts that are too long")

    p = command(
        "probe",
        "Which layer to take: a linear model on the features of each, tested on the dev rows.",
        "probe runs/demo --task tagging --data ner --out probed",
    )
    p.add_argument("model", help=MODEL)
    p.add_argument("--task", required=True, help="tagging, classification, or a GLUE name")
    p.add_argument("--data", required=True, help="the task's folder")
    p.add_argument("--out", required=True, help="a new folder")
    p.add_argument("--layers", help="words,0,6,12; the default is all of them")
    p.add_argument("--pool", choices=("mean", "cls", "first"), help="one instead of the task's two")
    p.add_argument("--rows", type=int, default=2000, help="training and dev rows; 0: all")
    p.add_argument("--seed", type=int, default=0, help="which rows are drawn")

    p = command(
        "import",
        "Hugging Face safetensors to a folder of ours; perhaps with more words and positions.",
        "import HF_FOLDER --out imported --add-tokens words.txt --positions 1024",
    )
    p.add_argument("folder", help="a Hugging Face folder, a run folder, or an imported folder")
    p.add_argument("--out", required=True, help="a new folder")
    p.add_argument("--generator", help="ELECTRA's generator, another folder: both become one state")
    p.add_argument("--tokenizer", help="the tokenizer's folder, if not beside the weights")
    p.add_argument("--heads", help="mlm,pooler,pair,rtd: those that are missing are initialised")
    p.add_argument("--drop", nargs="*", default=(), help="tensors to pass over, by beginning")
    p.add_argument("--allow-pickle", action="store_true", help="read a .bin, by PyTorch, no code")
    p.add_argument("--cased", action="store_true", help="a bare vocabulary has capital letters")
    p.add_argument("--add-tokens", metavar="FILE", help="a longer vocabulary: one word per line")
    p.add_argument("--positions", type=int, help="longer texts; learned positions are repeated")

    p = command(
        "export",
        "A model of ours to Hugging Face, to an Orbax tree, to a portable function.",
        "export runs/demo --format hf --out exported",
    )
    p.add_argument("model", help=MODEL)
    p.add_argument("--format", choices=("hf", "orbax", "stablehlo"), required=True)
    p.add_argument("--out", required=True, help="a new folder")
    p.add_argument("--part", choices=("discriminator", "generator"), help="of an ELECTRA")

    p = command(
        "inspect",
        "The parameter table of a config or a model.",
        "inspect configs/bert_base.py --json",
    )
    p.add_argument("target", help=f"a config file, or {MODEL}")
    p.add_argument("--json", action="store_true")

    p = command(
        "report",
        "Loss curves and a comparison of runs: PNG and one HTML page.",
        "report runs/demo --out runs/demo/report",
    )
    p.add_argument("run", nargs="+", help="run folders")
    p.add_argument("--out", required=True)

    p = command(
        "replay",
        "Do one step of a run again, and show its losses and gradient norms; changes nothing.",
        "replay runs/demo 137",
    )
    p.add_argument("run", help="a run folder, of pre-training or fine-tuning")
    p.add_argument("step", type=int)
    return top


def _processes(p: argparse.ArgumentParser) -> None:
    """Of a command that several processes run together."""
    several = p.add_argument_group(
        "several processes",
        "Found by themselves under SLURM, Open MPI and on Cloud TPU; launch/local.sh sets them.",
    )
    several.add_argument("--processes", type=int, metavar="N", help="that train together")
    several.add_argument("--process", type=int, metavar="I", help="which one this is, from 0")
    several.add_argument("--coordinator", metavar="HOST:PORT", help="of process 0, a free port")
    several.add_argument(
        "--wait", type=float, default=300, metavar="SECONDS", help="for all of them to come (300)"
    )


class _Parser(argparse.ArgumentParser):
    """argparse's messages in one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        print(f"{self.prog}: {message} (see {self.prog} --help)", file=sys.stderr)
        raise SystemExit(2)
