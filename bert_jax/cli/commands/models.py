"""What uses a model."""

from __future__ import annotations

import argparse
import json
import logging
from pathlib import Path

from bert_jax.cli.overrides import from_config, from_folder

logger = logging.getLogger(__name__)


def predict(args: argparse.Namespace, rest: list[str]) -> int:
    from bert_jax import load
    from bert_jax.inference import predict

    rows, cut = predict.predict_file(load(args.model), Path(args.input), Path(args.out))
    if cut:
        logger.warning("%d of %d texts were longer than the model and cut", cut, rows)
    print(f"predictions for {rows} rows in {args.out}")
    return 0


def fill(args: argparse.Namespace, rest: list[str]) -> int:
    from bert_jax import load

    for i, guesses in enumerate(load(args.model).fill(args.text, top=args.top), 1):
        print(f"mask {i}: " + "  ".join(f"{token} {p:.3f}" for token, p in guesses))
    return 0


def embed(args: argparse.Namespace, rest: list[str]) -> int:
    from bert_jax import load
    from bert_jax.inference.embed import embed_file

    layers = "words" if args.layers == "words" else _numbers(args.layers)
    pool = None if args.pool == "none" else args.pool
    out = Path(args.out)
    texts = embed_file(load(args.model), Path(args.file), out, layers, pool, args.truncate)
    print(f"features of {texts} texts in {out}")
    return 0


def probe(args: argparse.Namespace, rest: list[str]) -> int:
    from bert_jax import load
    from bert_jax.inference.probe import probe_layers, render_probe

    names = args.layers.split(",") if args.layers else ()
    found = probe_layers(
        load(args.model),
        args.task,
        args.data,
        Path(args.out),
        layers=[n if n == "words" else _numbers(n)[0] for n in names],
        pools=(args.pool,) if args.pool else (),
        rows=args.rows,
        seed=args.seed,
        name=args.model,
    )
    print(render_probe(found))
    print(f"probe: {args.out}")
    return 0


def import_(args: argparse.Namespace, rest: list[str]) -> int:
    from bert_jax.inference import import_model

    drawn = import_model.import_folder(
        args.folder,
        args.out,
        generator=args.generator,
        tokenizer=args.tokenizer,
        heads=args.heads.split(",") if args.heads else (),
        drop=args.drop,
        allow_pickle=args.allow_pickle,
        cased=args.cased,
        words=[w.strip() for w in _lines(args.add_tokens) if w.strip()] if args.add_tokens else (),
        positions=args.positions,
    )
    for name in drawn:
        print(f"drawn at random: {name}")
    print(f"imported folder: {args.out}")
    return 0


def export(args: argparse.Namespace, rest: list[str]) -> int:
    from bert_jax import load
    from bert_jax.convert import export

    left_out = export.export_model(load(args.model), args.model, args.format, args.out, args.part)
    for name in left_out:
        print(f"has no place there: {name}")
    print(f"{args.format}: {args.out}")
    return 0


def inspect(args: argparse.Namespace, rest: list[str]) -> int:
    from bert_jax.perf import param_table

    if args.target.endswith(".py"):
        experiment = from_config(args.target, rest)
    else:
        experiment = from_folder(args.target, rest)
    table = param_table.parameter_table(experiment)
    print(json.dumps(table) if args.json else param_table.render_table(table))
    return 0


def _numbers(layers: str) -> list[int]:
    try:
        return [int(i) for i in layers.split(",")]
    except ValueError:
        raise ValueError(f"--layers is {layers!r}: expected numbers such as 0,6,12") from None


def _lines(path: str) -> list[str]:
    try:
        # Lines end at \n alone: a form feed or U+2028 within a text does not begin another.
        texts = Path(path).read_text(encoding="utf-8").removesuffix("\n").split("\n")
    except (OSError, UnicodeDecodeError) as e:
        raise ValueError(f"{path} cannot be read as UTF-8 text: {e}") from e
    if texts == [""]:
        raise ValueError(f"{path} is empty: expected one text per line")
    return texts
