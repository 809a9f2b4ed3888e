"""Flags of what uses a model."""

from __future__ import annotations

from bert_jax.cli.flags.command import MODEL, Command


def predict(command: Command) -> None:
    p = command(
        "predict",
        "What a fine-tuned model says of new rows: JSONL in, JSONL out, in the same order.",
        "predict runs/finetune new.jsonl --out predictions.jsonl",
    )
    p.add_argument("model", help="a fine-tuned run folder, or an exported one")
    p.add_argument("input", help="rows as for finetune, without labels; also SQuAD's .json")
    p.add_argument("--out", required=True, help="a new file")


def fill(command: Command) -> None:
    p = command(
        "fill", "Fill the mask tokens of a text.", 'fill runs/demo "We will [MASK] our freedom."'
    )
    p.add_argument("model", help=MODEL)
    p.add_argument("text")
    p.add_argument("--top", type=int, default=5)


def embed(command: Command) -> None:
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


def probe(command: Command) -> None:
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


def import_(command: Command) -> None:
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


def export(command: Command) -> None:
    p = command(
        "export",
        "A model of ours to Hugging Face, to an Orbax tree, to a portable function.",
        "export runs/demo --format hf --out exported",
    )
    p.add_argument("model", help=MODEL)
    p.add_argument("--format", choices=("hf", "orbax", "stablehlo"), required=True)
    p.add_argument("--out", required=True, help="a new folder")
    p.add_argument("--part", choices=("discriminator", "generator"), help="of an ELECTRA")


def inspect(command: Command) -> None:
    p = command(
        "inspect",
        "The parameter table of a config or a model.",
        "inspect configs/bert_base.py --json",
    )
    p.add_argument("target", help=f"a config file, or {MODEL}")
    p.add_argument("--json", action="store_true")
