"""Flags of what is done to text."""

from __future__ import annotations

from bert_jax.cli.flags.command import Command

TEXT = (
    "files and globs: plain with blank lines between documents, .gz .xz .zst, .jsonl .parquet; "
    "or tfds:NAME/SPLIT"
)


def tokenizer(command: Command) -> None:
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


def prepare(command: Command) -> None:
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
    p.add_argument(
        "--length", type=int, required=True, help="tokens per row, or per packed sequence"
    )
    p.add_argument("--out", required=True, help="a new folder")
    p.add_argument("--workers", type=int, default=1, help="processes; the rows do not depend on it")
    p.add_argument(
        "--pack",
        type=int,
        nargs="?",
        const=None,  # without a number: the usual one for these lengths
        default=0,
        metavar="N",
        help="up to N sequences in a row, none of which sees another; without N 3 more than full "
        "ones would fit: more for short texts",
    )
    p.add_argument(
        "--row-length",
        type=int,
        metavar="L",
        help="tokens of a packed row (as --length); longer ones fill better, attention costs more",
    )
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--duplicates", type=int, default=1, help="passes over the text, each cut anew")
    p.add_argument(
        "--engine",
        choices=("local", "beam"),
        default="local",
        help="the corpus does not depend on it; other flags go to Beam, as --runner=FlinkRunner",
    )
    p.add_argument("--strict", action="store_true", help="refuse bytes that are not UTF-8")
