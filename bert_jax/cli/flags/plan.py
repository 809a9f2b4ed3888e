"""Flags of the plan."""

from __future__ import annotations

from bert_jax.cli.flags.command import Command


def plan(command: Command) -> None:
    p = command(
        "plan",
        "Compile the train step for TPU slices that nobody needs to own: does it fit, what binds.",
        "plan configs/bert_large.py --topology v5e:4x4 --run.dtype bfloat16 --optim.accumulate 2",
    )
    p.add_argument("config", help="a file of configs/; its fields can be changed as for pretrain")
    p.add_argument(
        "--topology",
        action="append",
        required=True,
        metavar="SLICE",
        help="v5e:4x4, v5p:4x4x4, v6e:2x4, v4:2x2x1; may be given several times",
    )
    p.add_argument(
        "--fit",
        action="store_true",
        help="also find a batch that fits where twice as many rows do not, by doublings",
    )
    p.add_argument("--json", action="store_true", help="print one JSON object")
