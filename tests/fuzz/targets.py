"""What reads files of other people, each as a function of bytes.

An input is one file, or several with `CUT` between them. A target puts them into a folder and
does with it what the commands do, up to the point where a network would begin.
"""

from __future__ import annotations

import functools
import importlib.util
import itertools
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bert_jax import config, tasks
from bert_jax.checkpoint import manifest
from bert_jax.config import GlueTask, TaskType
from bert_jax.data import corpus, documents
from bert_jax.data.sentences import split_sentences
from bert_jax.data.tokenization import tokenizer as tokenizers
from bert_jax.tasks.glue import GLUE_COLUMNS

from . import seeds
from .contract import is_told

CUT = b"\n---8<---\n"
KINDS: tuple[TaskType, ...] = ("classification", "regression", "tagging", "choice", "qa")


class Target(NamedTuple):
    files: tuple[tuple[str, str], ...]  # name in the folder, shape (mutate.SHAPES)
    seeds: Callable[[], list[list[bytes]]]
    use: Callable[[Path], Any]
    extra: Callable[[], dict[str, bytes]] = dict  # files that are as they should be
    cost: int = 1  # inputs are divided by it
    bounded: bool = True  # in memory

    def feed(self, folder: Path, data: bytes) -> None:
        """Lay the files out in a folder of this target's own, and use them."""
        parts = data.split(CUT)
        for (name, _), part in itertools.zip_longest(self.files, parts[: len(self.files)]):
            _put(folder / name, part)
        for name, content in self.extra().items():
            _put(folder / name, content)
        self.use(folder)

    def inputs(self) -> list[bytes]:
        return [CUT.join(parts) for parts in self.seeds()]


def _put(path: Path, content: bytes | None) -> None:
    if content is None:
        path.unlink(missing_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


# ---- text


def _documents(name: str, folder: Path) -> None:
    for document in documents.read_documents([folder / name]):
        for paragraph in document.paragraphs:
            assert "\n" not in paragraph
            split_sentences(paragraph)
    for _ in documents.read_documents([folder / name], strict=True):
        pass


def _text(name: str, shape: str, content: Callable[[], bytes], cost: int = 1) -> Target:
    files = ((name, shape),)
    return Target(files, lambda: [[content()]], functools.partial(_documents, name), cost=cost)


# ---- tasks


def _outputs(encoded: tasks.EncodedExamples, labels: Sequence[str], joint: bool) -> list[Any]:
    """Random network outputs for each row."""
    rng = np.random.default_rng(0)

    def draw(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(np.float32)

    def output(row: dict[str, Any]) -> Any:
        size = int(row["size"]) if np.ndim(row["size"]) == 0 else len(row["size"])
        if encoded.task_type == "regression":
            return draw(1)[0]
        if encoded.task_type == "qa" and joint:
            beam = {"start": draw(3), "end": draw(3, 2), "answerable": draw(1)[0]}
            return beam | {
                "start_at": rng.integers(0, size, 3),
                "end_at": rng.integers(0, size, (3, 2)),
            }
        if encoded.task_type == "qa":
            return {"start": draw(size), "end": draw(size)}
        return draw(
            *{"tagging": (size, len(labels)), "choice": (size,)}.get(
                encoded.task_type, (len(labels),)
            )
        )

    return [output(row) for row in encoded.rows]


def _task(task: TaskType | GlueTask, folder: Path) -> None:
    """Read, encode, and decode what a network might say, as finetune does."""
    data = tasks.read_dataset(task, folder)
    tasks.main_metric(task, data)
    for split, examples in data.splits.items():
        train = split == "train"
        encoded = tasks.encode_examples(
            data.task_type, examples, seeds.wordpiece(), 24, data.labels, train=train, stride=4
        )
        for joint in (False, True) if data.task_type == "qa" else (False,):
            outputs = _outputs(encoded, data.labels, joint)
            tasks.compute_metrics(task, encoded, outputs, data.labels)
            tasks.decode_predictions(encoded, outputs, data.labels)
        if data.task_type in ("classification", "tagging"):
            tasks.confusion_matrix(encoded, outputs, data.labels)


def _jsonl_task(kind: TaskType, folder: Path) -> None:
    rows = folder / "train.jsonl"
    first: list[ValueError] = []
    for use in (
        lambda: list(tasks.iter_unlabeled_examples(kind, rows)),
        lambda: None if kind == "qa" else _both(kind, folder),
    ):
        try:
            use()
        except ValueError as e:  # each is to be tried
            first.append(e)
    if first:
        raise _foreign(first)


def _foreign(errors: Sequence[ValueError]) -> ValueError:
    """The one that nobody would tell the user, if there is one."""
    return next((e for e in errors if not is_told(e)), errors[0])


def _both(task: TaskType | GlueTask, folder: Path) -> None:
    """The same rows to train on and to evaluate."""
    train = next(iter(folder.glob("train.*")))
    for dev in ("dev_matched", "dev_mismatched") if task == "mnli" else ("dev",):
        shutil.copyfile(train, folder / f"{dev}{train.suffix}")
    _task(task, folder)


def _race(folder: Path) -> None:
    shutil.copytree(folder / "train", folder / "dev", dirs_exist_ok=True)
    _task("choice", folder)


def _glue(task: GlueTask) -> Target:
    test = "test_matched.tsv" if task == "mnli" else "test.tsv"
    return Target(
        (("train.tsv", "lines"), (test, "lines")),
        lambda: [[seeds.glue(task, False), seeds.glue(task, True)]],
        functools.partial(_both, task),
        cost=8,
    )


def _rows(kind: TaskType) -> Target:
    files = (("train.jsonl", "jsonl"),)
    return Target(files, lambda: [[seeds.rows(kind)]], functools.partial(_jsonl_task, kind), cost=4)


# ---- tokenizers


def _tokenizer(folder: Path) -> None:
    loaded = tokenizers.load_tokenizer(folder)
    for text in (*seeds.SENTENCES, "", " ", f"\u0301\x00 \U0001f600{loaded.mask_token}1990, x"):
        ids, spans = loaded.encode_with_offsets(text)
        assert len(ids) == len(spans)
        assert all(0 <= i < loaded.vocab_size for i in loaded.encode_with_masks(text))
        loaded.decode(loaded.build_row(loaded.encode(text), ids)[0])
    loaded.word_edges()
    loaded.save(folder / "out")


def _saved(kind: str, *files: tuple[str, str], extra: Sequence[str] = ()) -> Target:
    names = [name for name, _ in files]
    return Target(
        files,
        lambda: [seeds.files_of(kind, names)],
        _tokenizer,
        lambda: {name: seeds.saved(kind)[name] for name in extra},
        cost=2,
    )


SETTINGS = ("tokenizer_config.json", "json")


# ---- models and runs


def _config(folder: Path) -> None:
    read = config.read_config(folder / "config.json")
    assert config.from_dict(config.Experiment, config.to_dict(read)) == read


def _hf_config(folder: Path) -> None:
    from bert_jax import convert

    if convert.is_hf_folder(folder):
        convert.read_hf_experiment(folder)


def _hf_folder(folder: Path) -> None:
    from bert_jax import convert

    convert.read_hf_folder(folder)


def _tensors(folder: Path) -> None:
    from bert_jax.convert import hf_folder as folders

    folders.read_tensors(folder, allow_pickle=True)


def _manifest(folder: Path) -> None:
    problem = manifest.verify(folder / "checkpoints/5")
    assert problem is None or isinstance(problem, str)
    manifest.latest_valid_step(folder / "checkpoints", repair=False)


def _run(folder: Path) -> None:
    from bert_jax.tasks import results
    from bert_jax.training import run_summary
    from bert_jax.utils import metrics_log

    metrics_log.read_metrics(folder)
    metrics_log.goodput(folder)
    run_summary.summary(folder)
    if results.read_results(folder) is not None:
        (folder / "results.json").unlink()
        run_summary.summary(folder)


def _resume(folder: Path) -> None:
    from bert_jax.training import metrics_writer
    from bert_jax.utils import metrics_log

    metrics_writer._truncate(folder / "metrics.jsonl", 1)
    assert all(line["step"] <= 1 for line in metrics_log.read_metrics(folder))


def _report(folder: Path) -> None:
    from bert_jax.convert.export.model_card import final_metrics
    from bert_jax.training import report

    final_metrics(folder)
    report.report([folder], folder / "report")


def _corpus(folder: Path) -> None:
    opened = corpus.open_corpus(folder)
    assert opened.fingerprint
    assert opened.unigram.ndim
    assert opened.tokenizer.vocab_size


def _around_corpus() -> dict[str, bytes]:
    tokenizer = {f"tokenizer/{name}": data for name, data in seeds.saved("wordpiece").items()}
    splits = {
        f"bert_jax_corpus-{s}.array_record-00000-of-00001": b"x" for s in ("train", "validation")
    }
    return {"dataset_info.json": b"{}", "features.json": b"{}", **tokenizer, **splits}


RUN = (("metrics.jsonl", "jsonl"), ("timing.jsonl", "jsonl"), ("results.json", "json"))
TENSORS = ("model.safetensors", "safetensors")

TARGETS: dict[str, Target] = {
    "text": _text("a.txt", "lines", seeds.document),
    **{s: _text(f"a.{s}", s, seeds.document) for s in ("gz", "bz2", "xz", "zst")},
    **{
        f"{s}_bytes": _text(f"a.{s}", "bytes", functools.partial(seeds.compressed, s))
        for s in ("gz", "bz2", "xz", "zst")
    },
    "jsonl": _text("a.jsonl", "jsonl", seeds.records),
    # A page says how large it is, and PyArrow asks for so much at once.
    "parquet": _text("a.parquet", "bytes", seeds.parquet)._replace(bounded=False),
    **{kind: _rows(kind) for kind in KINDS},
    "race": Target((("train/a.txt", "jsonl"),), lambda: [[seeds.race()]], _race, cost=2),
    "squad": Target(
        (("train.json", "json"),), lambda: [[seeds.squad()]], functools.partial(_both, "qa"), cost=6
    ),
    **{f"glue_{task}": _glue(task) for task in GLUE_COLUMNS},
    "tokenizer_json": _saved("wordpiece", ("tokenizer.json", "json"), SETTINGS),
    "tokenizer_bpe": _saved("bpe", ("tokenizer.json", "json"), SETTINGS),
    "vocab_txt": _saved("wordpiece", ("vocab.txt", "lines"), SETTINGS),
    "vocab_merges": _saved("bpe", ("vocab.json", "json"), ("merges.txt", "lines"), SETTINGS),
    "spiece": _saved("unigram", ("spiece.model", "bytes"), SETTINGS),
    "spiece_map": Target(
        (("spiece.model", "bytes"),), lambda: [[seeds.spiece_with_map()]], _tokenizer, cost=20
    ),
    "fingerprint": _saved(
        "wordpiece", ("tokenizer.json", "json"), ("fingerprint.txt", "bytes"), SETTINGS
    ),
    "config": Target(
        (("config.json", "json"),), lambda: [[e] for e in seeds.experiments()], _config
    ),
    "hf_config": Target(
        (("config.json", "json"),),
        lambda: [seeds.model()[:1]],
        _hf_config,
        lambda: {"model.safetensors": seeds.model()[1]},
    ),
    "hf_folder": Target(
        (("config.json", "json"), TENSORS), lambda: [seeds.model()], _hf_folder, cost=40
    ),
    "safetensors": Target((TENSORS,), lambda: [[seeds.tensors()]], _tensors),
    "index": Target(
        (("model.safetensors.index.json", "json"), ("one.safetensors", "safetensors")),
        lambda: [seeds.index()],
        _tensors,
    ),
    "pickle": Target(
        (("pytorch_model.bin", "bytes"),),
        lambda: [[seeds.pickle()]],
        _tensors,
        cost=2,
        bounded=False,
    ),
    "manifest": Target(
        (("checkpoints/5/manifest.json", "json"), (".checkpoints.newest", "bytes")),
        lambda: [[seeds.manifest(), b"5"]],
        _manifest,
        lambda: {"checkpoints/5/state/a": b"abc"},
    ),
    "run": Target(RUN, lambda: [seeds.run()], _run),
    "resume": Target(RUN[:1], lambda: [seeds.run()[:1]], _resume),
    "report": Target(RUN, lambda: [seeds.run()], _report, cost=100),
    "corpus": Target(
        (("corpus.json", "json"), ("unigram.npy", "bytes")),
        lambda: [seeds.prepared()],
        _corpus,
        _around_corpus,
        cost=2,
    ),
}
if importlib.util.find_spec("torch") is None:
    del TARGETS["pickle"]
