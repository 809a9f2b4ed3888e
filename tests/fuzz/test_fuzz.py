"""Files of other people work or are named in a message; a few cases of what `make fuzz` tries,
and what it once found."""

from __future__ import annotations

import gzip
import json
import lzma
import sys
from pathlib import Path

import hypothesis
import pytest
import zstandard

from bert_jax.data import documents, tfds_folder
from bert_jax.tasks import tfds
from tests.fuzz import mutate, seeds
from tests.fuzz.contract import breach
from tests.fuzz.targets import CUT, TARGETS, Target

FOUND = sorted((Path(__file__).parent / "cases").iterdir())
CASES = [c for c in FOUND if c.name.partition("--")[0] in TARGETS]
DEEP = b"[" * 100_000 + b"]" * 100_000


@pytest.fixture(scope="module", autouse=True)
def started() -> None:
    """The threads of jax take more room than an input is allowed."""
    seeds.model()


def holds(target: Target, folder: Path, data: bytes) -> None:
    broken = breach(lambda content: target.feed(folder, content), data, target.bounded)
    assert broken is None, broken.trace


@pytest.mark.parametrize("name", TARGETS)
def test_a_file_works_or_is_named_in_a_message(name: str, tmp_path: Path) -> None:
    target = TARGETS[name]

    @hypothesis.settings(
        max_examples=max(4, 200 // target.cost),
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(mutate.inputs(target))
    def run(data: bytes) -> None:
        holds(target, tmp_path, data)

    run()


@pytest.mark.parametrize("name", TARGETS)
def test_the_seeds_are_valid(name: str, tmp_path: Path) -> None:
    target = TARGETS[name]
    for parts in target.seeds():
        shaped = zip(target.files, parts, strict=True)
        target.feed(tmp_path, CUT.join(mutate.SHAPES[shape](p, []) for (_, shape), p in shaped))


def test_every_case_has_a_target() -> None:
    assert {c.name.partition("--")[0] for c in FOUND} <= {*TARGETS, "pickle"}  # needs PyTorch


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_what_was_found_stays_mended(case: Path, tmp_path: Path) -> None:
    holds(TARGETS[case.name.partition("--")[0]], tmp_path, case.read_bytes())


JSON = [name for name, target in TARGETS.items() if target.files[0][1] in ("json", "jsonl")]


@pytest.mark.parametrize("name", JSON)
def test_nesting_of_any_depth_is_no_traceback(name: str, tmp_path: Path) -> None:
    for data in (DEEP + b"\n", b'{"text": ' + DEEP + b"}\n", b'{"encoder": ' * 9000):
        holds(TARGETS[name], tmp_path, data)


def _tensors(header: bytes, size: int | None = None) -> bytes:
    return (len(header) if size is None else size).to_bytes(8, "little") + header + b"\0" * 64


HUGE: dict[str, tuple[str, bytes]] = {
    "a header of 2^60 bytes": ("safetensors", _tensors(b"{}", 1 << 60)),
    "a tensor of 2^60 bytes": (
        "safetensors",
        _tensors(b'{"a":{"dtype":"F32","shape":[%d],"data_offsets":[0,%d]}}' % (1 << 58, 1 << 60)),
    ),
    "a shape beyond 2^64": (
        "safetensors",
        _tensors(
            b'{"a":{"dtype":"F32","shape":[%d,%d],"data_offsets":[0,0]}}' % (1 << 62, 1 << 62)
        ),
    ),
    "an array of 2^50 numbers": (
        "corpus",
        seeds.prepared()[0]
        + CUT
        + seeds.prepared()[1].replace(b"(5,)" + b" " * 15, b"(%d,)" % (1 << 50) + b" " * 3),
    ),
    "a line of 4 MiB": ("text", b"a" * (4 << 20)),
    "a piece of 8 MiB": ("vocab_txt", b"[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n" + b"a" * (8 << 20)),
    "64 MiB of one line in a gzip": ("gz", gzip.compress(b"a" * (64 << 20), 1)),
    "1 MiB of newlines in an xz": ("xz", lzma.compress(b"\n" * (1 << 20), preset=0)),
    "64 MiB of zeros in a zstd": ("zst", zstandard.compress(b"\0" * (64 << 20))),
    "a window of 2 GiB in a zstd": ("zst", bytes.fromhex("28b52ffd00a8") + b"\0" * 40),
    "an alphabet of 2^31 in an xz": ("xz", bytes.fromhex("fd377a585a000001") + b"\xff" * 64),
    "50,000 members in a gzip": ("gz", gzip.compress(b"", mtime=0) * 50_000),
    "an integer of 10^6 digits": ("squad", b'{"data": ' + b"9" * 10**6 + b"}"),
    "an object of one key 10^5 times": ("config", b'{"a": 1' + b', "a": 1' * 10**5 + b"}"),
    "a million empty lists": ("jsonl", b'{"text": [' + b"[]," * 10**6 + b"[]]}\n"),
}


@pytest.mark.parametrize("what", HUGE)
def test_a_small_file_does_not_take_much_memory_or_time(what: str, tmp_path: Path) -> None:
    name, data = HUGE[what]
    holds(TARGETS[name], tmp_path, data)


@pytest.mark.parametrize(("objects", "texts"), [(5 << 20, [("a",)]), (20 << 20, [])])
def test_a_packed_record_does_not_take_much_memory(
    objects: int, texts: list[tuple[str, ...]], tmp_path: Path
) -> None:
    """Each empty object is 3 bytes in a record, a thousandth of that packed, and 88 in memory:
    the longest record that is read fits, and a longer one is refused."""
    record = b'{"text": "a", "more": [' + b"{}," * objects + b"{}]}\n"
    (tmp_path / "a.jsonl.zst").write_bytes(zstandard.compress(record))
    found: list[tuple[str, ...]] = []

    def use(_: bytes) -> None:
        found.extend(d.paragraphs for d in documents.read_documents([tmp_path / "a.jsonl.zst"]))

    broken = breach(use, b"")
    assert broken is None, broken.trace
    assert found == texts


# ---- code that a file names is not run


@pytest.mark.parametrize(
    "features",
    [
        {"pythonClassName": "stranger.Feature"},
        {"python_class_name": "stranger.Feature"},
        {"type": "stranger.Feature", "content": {}},
        {"featuresDict": {"features": {"text": {"pythonClassName": "stranger.Feature"}}}},
        {
            "pythonClassName": f"{tfds_folder.TFDS_FEATURES}sequence_feature.Sequence",
            "jsonFeature": {},
        },
    ],
    ids=str,
)
def test_tfds_imports_no_module_that_a_data_set_names(
    features: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "stranger.py").write_text("raise SystemExit('it ran')")
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data/features.json").write_text(json.dumps(features))
    with pytest.raises(ValueError, match="whose code TFDS would run"):
        list(documents.read_documents([f"tfds:{tmp_path / 'data'}/train"]))
    with pytest.raises(ValueError, match="whose code TFDS would run"):
        tfds._open(f"tfds:{tmp_path / 'data'}")
    assert "stranger" not in sys.modules
