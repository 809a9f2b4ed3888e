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
from bert_jax.failure import FULL, Failure

PACKAGE = Path(__file__).parent


def tokenizer(args: argparse.Namespace, rest: list[str]) -> int:
    from bert_jax import folders
    from bert_jax.text import documents, training
    from bert_jax.text import tokenizer as tokenizers

    replaced = 0

    def lines() -> Iterator[str]:
        nonlocal replaced
        for document in documents.read(args.text, strict=args.strict):
            replaced += document.replaced
            yield from document.paragraphs

    folders.check_new(Path(args.out))
    texts = training.sample(lines(), args.sample_mb)
    made = tokenizers.train(texts, args.kind, args.vocab_size, cased=args.cased)
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
        flags=rest,
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
    from bert_jax import processes
    from bert_jax.pretrain import pretrain

    place = processes.place(args.processes, args.process, args.coordinator)
    with processes.joined(place, experiment, args.wait):
        stopped = pretrain(experiment)
    if stopped is not None:
        return 128 + stopped
    if place is not None and place.number > 0:
        return 0
    from bert_jax import report

    print(report.summary(Path(experiment.run.dir)))
    return 0


def finetune(args: argparse.Namespace, rest: list[str]) -> int:
    from bert_jax import config

    recipe = config.from_file(args.config)
    given = [("--run.init", args.init), ("--objective.task", args.task), ("--data.path", args.data)]
    rest = [*rest, *(part for pair in given for part in pair)]
    vain = [o for o in rest if o.startswith("--encoder.") and "dropout" not in o]
    if vain:
        raise ValueError(f"{vain[0]}: the encoder is the model's but for its dropout")
    from bert_jax.finetune import finetune
    from bert_jax.recipe import for_model

    experiment = for_model(recipe, lambda e: _override(e, rest, "finetune"))
    stopped = finetune(experiment, args.seeds)
    if stopped is not None:
        return 128 + stopped
    from bert_jax import report

    print(report.summary(Path(experiment.run.dir)))
    return 0


def predict(args: argparse.Namespace, rest: list[str]) -> int:
    from bert_jax import applying, load

    rows, cut = applying.apply(load(args.model), Path(args.input), Path(args.out))
    if cut:
        print(f"{cut} of {rows} texts were longer than the model and cut", file=sys.stderr)
    print(f"predictions for {rows} rows in {args.out}")
    return 0


def fill(args: argparse.Namespace, rest: list[str]) -> int:
    from bert_jax import load

    for i, guesses in enumerate(load(args.model).fill(args.text, top=args.top), 1):
        print(f"mask {i}: " + "  ".join(f"{token} {p:.3f}" for token, p in guesses))
    return 0


def embed(args: argparse.Namespace, rest: list[str]) -> int:
    from bert_jax import load
    from bert_jax.embed import embed

    layers = "words" if args.layers == "words" else _numbers(args.layers)
    pool = None if args.pool == "none" else args.pool
    out = Path(args.out)
    texts = embed(load(args.model), Path(args.file), out, layers, pool, args.truncate)
    print(f"features of {texts} texts in {out}")
    return 0


def probe(args: argparse.Namespace, rest: list[str]) -> int:
    from bert_jax import load
    from bert_jax.probe import probe, table

    names = args.layers.split(",") if args.layers else ()
    found = probe(
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
    print(table(found))
    print(f"probe: {args.out}")
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


def replay(args: argparse.Namespace, rest: list[str]) -> int:
    from bert_jax.replay import show

    show(Path(args.run), args.step)
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
    "finetune": finetune,
    "predict": predict,
    "fill": fill,
    "embed": embed,
    "probe": probe,
    "import": import_,
    "export": export,
    "inspect": inspect,
    "report": report,
    "replay": replay,
}


def main(argv: Sequence[str] | None = None) -> NoReturn:
    argv = sys.argv[1:] if argv is None else list(argv)
    if argv[:1] in (["pretrain"], ["finetune"]) and argv[2:] == ["--help"]:
        _experiment(argv[1], ["--help"], argv[0])  # the fields of this config; does not return
    args, rest = flags.parser().parse_known_args(argv)
    beam = getattr(args, "engine", None) == "beam"  # whose runners have flags of their own
    if rest and args.command not in ("pretrain", "finetune", "inspect") and not beam:
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
    except OSError as e:
        if e.errno not in FULL:
            raise
        _fail(f"{e.filename or 'output'}: {e.strerror}: make room, then try again", status=1)
    except Failure as e:
        _fail(str(e), status=1)
    except KeyboardInterrupt:
        status = 130
    _end(status)


def _raised_here(e: BaseException) -> bool:
    last = traceback.extract_tb(e.__traceback__)[-1].filename
    return last == "<string>" or PACKAGE in Path(last).parents


def _fail(message: str, status: int = 2) -> NoReturn:
    print(f"bert-jax: {message}", file=sys.stderr)
    _end(status)


def _end(status: int) -> NoReturn:
    if "bert_jax.processes" in sys.modules:
        from bert_jax import processes

        processes.leave(status)
    sys.exit(status)


def _experiment(path: str, overrides: list[str], command: str = "pretrain") -> Any:
    """A config file with `--section.field value` laid over it."""
    from bert_jax import config

    return _override(config.from_file(path), overrides, command)


def _resolved(folder: str, overrides: list[str]) -> Any:
    from bert_jax import config, convert

    if not (Path(folder) / "config.json").is_file():
        raise ValueError(f"{folder} is neither a config file (*.py) nor a model's folder")
    if convert.is_hf_folder(Path(folder)):
        return _override(convert.read_experiment(folder), overrides)
    return _override(config.read(Path(folder) / "config.json"), overrides)


def _override(experiment: Any, overrides: list[str], command: str = "pretrain") -> Any:
    import tyro

    from bert_jax.config import Experiment

    return tyro.cli(
        tyro.conf.AvoidSubcommands[Experiment],  # type: ignore[type-var]
        default=experiment,
        args=overrides,
        prog=f"bert-jax {command} CONFIG",
    )


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
