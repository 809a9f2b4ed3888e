"""Beam makes the corpus that this machine makes, to the last byte of its rows."""

import hashlib
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
from array_record.python.array_record_module import ArrayRecordWriter

from bert_jax.data import corpus, records, splits, token_store
from bert_jax.data.prepare import prepare_corpus
from bert_jax.data.token_store import TokenRecord
from bert_jax.data.tokenization.training import train_tokenizer
from tests.helpers.cli_runner import call
from tests.helpers.paths import SAMPLE

with_beam = pytest.mark.skipif(
    importlib.util.find_spec("apache_beam") is None, reason="apache-beam is not installed"
)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> Path:
    """Two files of about a hundred documents, and a tokenizer."""
    folder = tmp_path_factory.mktemp("given")
    documents = [d[: len(d) // 40] for d in SAMPLE.read_text(encoding="utf-8").split("\n\n")]
    for name, part in (("a", documents[:50]), ("b", documents[50:100])):
        (folder / f"{name}.txt").write_text("\n\n".join(part), encoding="utf-8")
    train_tokenizer(documents, "wordpiece", 500).save(folder / "tokenizer")
    return folder


def make(inputs: Path, out: Path, **options) -> corpus.Corpus:
    arguments = {"texts": [str(inputs / "*.txt")], "segments": "nsp", "length": 32}
    arguments |= {"duplicates": 1, "progress": False} | options
    return prepare_corpus(tokenizer_dir=inputs / "tokenizer", out=out, **arguments)


def rows(prepared: corpus.Corpus) -> list[str]:
    """A hash of every row, in their order, training rows first."""
    out = []
    for split in splits.SPLITS:
        source = prepared.source(split)
        for r in source.__getitems__(list(range(len(source)))):
            tail = f"{r['size']} {r['first']} {r['pair']}".encode()
            out.append(hashlib.sha256(r["tokens"].tobytes() + tail).hexdigest())
    return out


def test_documents_of_more_than_100_000_files_keep_their_order(tmp_path):
    """The name of file 100,000 sorts before that of file 99,999."""
    starts, written = {}, []
    for name in ("99999-000000", "99999-1000000", "100000-000000"):
        starts[f"{name}.array_record"] = len(written)
        writer = ArrayRecordWriter(str(tmp_path / f"{name}.array_record"), records.WRITER_OPTIONS)
        for _ in range(2):
            written.append(TokenRecord.from_sentences([[len(written)]]).data)
            writer.write(written[-1])
        writer.close()
    token_store.write_block_index(tmp_path, starts)
    assert sorted(starts) != list(starts)
    assert token_store.open_blocks(tmp_path).__getitems__(range(len(written))) == written


@with_beam
@pytest.mark.parametrize(
    "options",
    [dict(duplicates=None), dict(segments="full"), dict(segments="electra", seed=3), dict(pack=3)],
    ids=lambda o: "-".join(map(str, o.values())),
)
def test_the_corpus_is_that_of_the_local_engine(options, inputs, tmp_path, monkeypatch):
    """Over several blocks, units and shards: the same rows, as a multiset and in order, the same
    counts, so the same fingerprint: a run may go on with either."""
    from bert_jax.data import beam

    monkeypatch.setattr(beam, "BLOCK_CHARACTERS", 10_000)
    monkeypatch.setattr(records, "MIN_SHARD_ROWS", 100)
    monkeypatch.setattr(token_store, "MAX_SHARD_DOCUMENTS", 10)
    local = make(inputs, tmp_path / "local", **options)
    beamed = make(inputs, tmp_path / "beam", engine="beam", **options)
    assert len(list(beamed.path.glob("*train*"))) > 1
    assert sorted(rows(beamed)) == sorted(rows(local))
    assert rows(beamed) == rows(local)
    assert beamed.info == local.info
    assert beamed.fingerprint == local.fingerprint
    assert {p.name for p in beamed.path.iterdir() if "-of-" not in p.name} == {
        p.name for p in local.path.iterdir() if "-of-" not in p.name
    }


@with_beam
@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        (b"", {}, r"b\.txt is empty"),
        (b"One caf\xe9.\n", {"strict": True}, r"b\.txt, line 1, byte 8: 0xe9 is not UTF-8"),
        (b"A.\n", {"flags": ["--runer=FlinkRunner"]}, "unknown flag --runer"),
        (b"A.\n", {"flags": ["--runner=Sprinter"]}, "--runner is Sprinter: Apache Beam cannot"),
        (b"A.\n", {"workers": 2}, "only the local engine has workers"),
    ],
)
def test_bad_input_is_refused_as_locally_and_leaves_nothing(
    text, options, message, inputs, tmp_path
):
    """The first file is sound: the message is that of the file that is not."""
    (tmp_path / "b.txt").write_bytes(text)
    texts = [str(inputs / "a.txt"), str(tmp_path / "b.txt")]
    with pytest.raises(ValueError, match=message):
        make(inputs, tmp_path / "place" / "corpus", texts=texts, engine="beam", **options)
    assert not list(tmp_path.glob("place/*"))


@with_beam
def test_the_command_hands_unknown_flags_to_beam(inputs, tmp_path):
    """Beam runs in a process of its own, since its workers import the main module."""

    def args(name: str, *flags: str) -> list[str]:
        options = ["--tokenizer", str(inputs / "tokenizer"), "--segments", "sop", "--length", "32"]
        options += ["--duplicates", "2"]
        return ["prepare", str(inputs / "a.txt"), *options, "--out", str(tmp_path / name), *flags]

    flags = ("--direct_num_workers=2", "--direct_running_mode=multi_processing")
    assert call(*args("local", flags[0])) == 2
    assert call(*args("local")) == 0
    command = [sys.executable, "-m", "bert_jax", *args("beam", "--engine", "beam", *flags)]
    assert subprocess.run(command, capture_output=True).returncode == 0
    local, beam = (corpus.open_corpus(tmp_path / name).fingerprint for name in ("local", "beam"))
    assert local == beam


@with_beam
def test_too_little_text_is_refused_as_locally(inputs, tmp_path):
    (tmp_path / "one.txt").write_text("One document only.\nIts second line.\n")
    with pytest.raises(ValueError, match="has 1 document with words"):
        make(inputs, tmp_path / "corpus", texts=[str(tmp_path / "one.txt")], engine="beam")


@with_beam
def test_a_worker_that_does_not_share_the_folder_says_so(tmp_path):
    from bert_jax.data import beam

    with pytest.raises(FileNotFoundError, match="choose an --out that all workers"):
        next(beam._read_source((0, "text"), str(tmp_path), False, "text", 1))


@with_beam
def test_a_worker_that_runs_twice_changes_nothing(inputs, tmp_path, monkeypatch):
    """Runners may repeat a piece of work, whole or cut short."""
    from bert_jax.data import beam

    once = beam._encode_block

    def twice(item, **how):
        once(item, **how)
        place = Path(how["folder"]) / "documents" / "0.array_record"
        beam._temporary_path(place).write_bytes(b"cut short")
        return once(item, **how)

    monkeypatch.setattr(beam, "_encode_block", twice)
    assert rows(make(inputs, tmp_path / "twice", engine="beam")) == rows(
        make(inputs, tmp_path / "local")
    )


def test_without_beam_the_message_says_what_to_install(inputs, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    monkeypatch.delitem(sys.modules, "bert_jax.data.beam", raising=False)
    monkeypatch.delattr("bert_jax.data.beam", raising=False)
    with pytest.raises(ValueError, match=r"run pip install 'apache-beam>=2.77'"):
        make(inputs, tmp_path / "corpus", engine="beam")
    assert not (tmp_path / "corpus").exists()


def test_flags_of_a_runner_need_the_engine(inputs, tmp_path):
    with pytest.raises(ValueError, match=r"--runner=FlinkRunner is a flag of .* add --engine beam"):
        make(inputs, tmp_path / "corpus", flags=["--runner=FlinkRunner"])
