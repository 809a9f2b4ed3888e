"""Commands: parse, build, call; no logic.

Exit status: 0 done; 2 the user's input is wrong; 143 (130) stopped by SIGTERM (SIGINT) after
saving; 1 anything else. jax is imported by the commands that need it, not before.
"""

from __future__ import annotations

import argparse
import json
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from bert_jax import flags

PACKAGE = Path(__file__).parent


def tokenizer(args: argparse.Namespace, rest: list[str]) -> int:
    from bert_jax import folders
    from bert_jax.text import documents
    from bert_jax.text import tokenizer as tokenizers

    replaced = 0

    def lines() -> Iterator[str]:
        nonlocal replaced
        for document in documents.read(args.text, strict=args.strict):
            replaced += document.replaced
            yield from document.paragraphs

    folders.check_new(Path(args.out))
    made = tokenizers.train(lines(), args.kind, args.vocab_size, cased=args.cased)
    with folders.new_folder(Path(args.out)) as new:
        made.save(new)
    if replaced:
        print(f"{replaced} bytes were not UTF-8; U+FFFD stands for them", file=sys.stderr)
    print(f"{args.kind} tokenizer of {made.vocab_size} pieces in {args.out}")
    return 0


def prepare(args: argparse.Namespace, rest: list[str]) -> int:
    from bert_jax.text import corpus

    made = corpus.prepare(
        args.text,
        args.tokenizer,
        args.segments,
        args.length,
        Path(args.out),
        workers=args.workers,
        seed=args.seed,
        duplicates=args.duplicates,
        strict=args.strict,
        engine=args.engine,
    )
    for split in ("train", "validation"):
        counts = getattr(made.info, split)
        print(f"{split}: {counts.documents} documents, {counts.rows} rows, {counts.tokens} tokens")
    print(f"corpus: {args.out}")
    return 0


def pretrain(args: argparse.Namespace, rest: list[str]) -> int:
    init = [] if args.init is None else ["--run.init", args.init]
    experiment = _experiment(args.config, [*rest, *init])
    vain = [o for o in rest if o.startswith("--encoder.") and "dropout" not in o]
    if vain and experiment.run.init is not None:
        raise ValueError(f"{vain[0]} beside --init: the encoder is the model's but for its dropout")
    from bert_jax.pretrain import pretrain

    stopped = pretrain(experiment)
    if stopped is not None:
        return 128 + stopped
    from bert_jax import report

    print(report.summary(Path(experiment.run.dir)))
    return 0


def fill(args: argparse.Namespace, rest: list[str]) -> int:
    from bert_jax import load

    for i, guesses in enumerate(load(args.model).fill(args.text, top=args.top), 1):
        print(f"mask {i}: " + "  ".join(f"{token} {p:.3f}" for token, p in guesses))
    return 0


def embed(args: argparse.Namespace, rest: list[str]) -> int:
    import numpy as np

    from bert_jax import load

    out = Path(args.out)
    if out.suffix != ".npz" or out.exists():
        raise ValueError(f"--out is {out}: expected the name of a new .npz file")
    texts = _lines(args.file)
    try:
        layers = "words" if args.layers == "words" else [int(i) for i in args.layers.split(",")]
    except ValueError:
        raise ValueError(f"--layers is {args.layers!r}: expected numbers such as 0,6,12") from None
    pool = None if args.pool == "none" else args.pool
    features = load(args.model).encode(texts, layers, pool, truncate=args.truncate)  # type: ignore[arg-type]
    if pool is None:
        np.savez(out, **{f"text_{i}": x for i, x in enumerate(features)})
    else:
        np.savez(out, features=features)
    print(f"features of {len(texts)} texts in {out}")
    return 0


def import_(args: argparse.Namespace, rest: list[str]) -> int:
    from bert_jax import importing

    drawn = importing.import_folder(
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
    from bert_jax import export, load

    left_out = export.export(load(args.model), args.model, args.format, args.out, args.part)
    for name in left_out:
        print(f"has no place there: {name}")
    print(f"{args.format}: {args.out}")
    return 0


def inspect(args: argparse.Namespace, rest: list[str]) -> int:
    from bert_jax import inspect

    if args.target.endswith(".py"):
        experiment = _experiment(args.target, rest)
    else:
        experiment = _resolved(args.target, rest)
    table = inspect.parameters(experiment)
    print(json.dumps(table) if args.json else inspect.render(table))
    return 0


def report(args: argparse.Namespace, rest: list[str]) -> int:
    from bert_jax import report

    for path in report.report([Path(run) for run in args.run], Path(args.out)):
        print(path)
    return 0


# A path of the user's that cannot be: a file where a folder is needed, no permission.
PATH_ERRORS = (
    FileExistsError,
    FileNotFoundError,
    NotADirectoryError,
    IsADirectoryError,
    PermissionError,
)

COMMANDS: dict[str, Callable[[argparse.Namespace, list[str]], int]] = {
    "tokenizer": tokenizer,
    "prepare": prepare,
    "pretrain": pretrain,
    "fill": fill,
    "embed": embed,
    "import": import_,
    "export": export,
    "inspect": inspect,
    "report": report,
}


def main(argv: Sequence[str] | None = None) -> NoReturn:
    argv = sys.argv[1:] if argv is None else list(argv)
    if argv[:1] == ["pretrain"] and argv[2:] == ["--help"]:
        _experiment(argv[1], ["--help"])  # the fields of this config; does not return
    args, rest = flags.parser().parse_known_args(argv)
    if rest and args.command not in ("pretrain", "inspect"):
        _fail(f"unknown argument {rest[0]!r} (see bert-jax {args.command} --help)")
    try:
        status = COMMANDS[args.command](args, rest)
    except ValueError as e:
        # Our own code says ValueError where the input is wrong; from elsewhere it is a defect.
        if not _raised_here(e):
            raise
        _fail(str(e))
    except PATH_ERRORS as e:
        _fail(f"{e.filename}: {e.strerror}: choose another path")
    except KeyboardInterrupt:
        status = 130
    sys.exit(status)


def _raised_here(e: BaseException) -> bool:
    last = traceback.extract_tb(e.__traceback__)[-1].filename
    return last == "<string>" or PACKAGE in Path(last).parents


def _fail(message: str) -> NoReturn:
    print(f"bert-jax: {message}", file=sys.stderr)
    sys.exit(2)


def _experiment(path: str, overrides: list[str]) -> Any:
    """A config file with `--section.field value` laid over it."""
    from bert_jax import config

    return _override(config.from_file(path), overrides)


def _resolved(folder: str, overrides: list[str]) -> Any:
    from bert_jax import config, convert

    if not (Path(folder) / "config.json").is_file():
        raise ValueError(f"{folder} is neither a config file (*.py) nor a model's folder")
    if convert.is_hf_folder(Path(folder)):
        return _override(convert.read_experiment(folder), overrides)
    return _override(config.read(Path(folder) / "config.json"), overrides)


def _override(experiment: Any, overrides: list[str]) -> Any:
    import tyro

    from bert_jax.config import Experiment

    return tyro.cli(
        tyro.conf.AvoidSubcommands[Experiment],  # type: ignore[type-var]
        default=experiment,
        args=overrides,
        prog="bert-jax pretrain CONFIG",
    )


def _lines(path: str) -> list[str]:
    try:
        # Lines end at \n alone: a form feed or U+2028 within a text does not begin another.
        texts = Path(path).read_text(encoding="utf-8").removesuffix("\n").split("\n")
    except (OSError, UnicodeDecodeError) as e:
        raise ValueError(f"{path} cannot be read as UTF-8 text: {e}") from e
    if texts == [""]:
        raise ValueError(f"{path} is empty: expected one text per line")
    return texts
