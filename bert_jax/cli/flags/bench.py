"""Flags of the measurement."""

from __future__ import annotations

from bert_jax.cli.flags.command import Command


def bench(command: Command) -> None:
    p = command(
        "bench",
        "How fast a config trains on this machine: step time, tokens/s, utilisation, memory.",
        "bench configs/bert_small.py --batch-size 16 --length 128 --against transformers",
    )
    p.add_argument("config", help="a file of configs/; its fields can be changed as for pretrain")
    p.add_argument("--batch-size", type=int, metavar="N", help="rows of a step; else the config's")
    p.add_argument("--length", type=int, metavar="L", help="tokens of a row; else the config's")
    p.add_argument("--steps", type=int, default=20, metavar="N", help="rounds that are timed (20)")
    p.add_argument(
        "--against",
        choices=("transformers",),
        help="train a masked language model of the config's encoder, here and in PyTorch in turns",
    )
    p.add_argument("--no-compile", action="store_true", help="theirs, without torch.compile")
    p.add_argument("--fit", action="store_true", help="also find the largest batch that fits")
    p.add_argument("--data", metavar="CORPUS", help="its rows; else full rows of random ids")
    p.add_argument("--packed", metavar="CORPUS", help="the same text packed, for our side alone")
    p.add_argument("--json", action="store_true", help="print one JSON object")
