"""The commands of the documents: each parses; those of the guides run, at small sizes."""

import itertools
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from bert_jax.cli.command import change_config, parse
from bert_jax.cli.main import COMMANDS
from bert_jax.config import from_python_file
from bert_jax.data.tokenization.tokenizer import load_tokenizer
from tests.helpers import cheap_compiles
from tests.helpers.cli_runner import call
from tests.helpers.marks import SLOW
from tests.helpers.paths import ROOT

DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
GUIDES = {p.stem: p for p in sorted((ROOT / "docs" / "guides").glob("*.md"))}
BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)

# Put behind what the guide says: of two values of a flag the last one counts.
STEPS = "--run.steps 2 --run.eval-every 1 --run.eval-batches 1 --optim.warmup-steps 1"
SMALL = {
    "tokenizer": "--vocab-size 700",
    "prepare": "--workers 1 --duplicates 1",
    "pretrain": f"--data.batch-size 8 {STEPS}",
    "finetune": "--run.epochs 1 --data.batch-size 8 --seeds 2",
    "bench": "--batch-size 4 --length 16 --steps 2 --encoder.vocab-size 700",
    "evaluate": "--max-rows 8",
    "plan": "--data.batch-size 128",
}
SMALL_TEXT = "--max-words 5"  # of evaluate --text
SMALL_CONFIG = """
from bert_jax.config import from_python_file, replace
big = from_python_file({path!r})
few = dict(layers=2, hidden_size=32, heads=2, mlp_size=64, max_length=512)
config = big if {name!r}.startswith("finetune") else replace(big, encoder=few)
"""
PROGRAM = """#!{python}
import shlex, sys
from bert_jax.cli.main import main
small = {small!r}
args = sys.argv[1:]
main([*args, *shlex.split(small.get(args[0], ""))])
"""


def commands(guide: str) -> list[str]:
    blocks = BLOCK.findall(GUIDES[guide].read_text(encoding="utf-8"))
    return [line for block in blocks for line in block.splitlines()]


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what the guides begin with: text, labels, small configs, the launchers."""
    whole = (ROOT / "data/sample.txt").read_text(encoding="utf-8").split("\n\n")
    documents = ["\n".join(d.splitlines()[:60]) for d in whole[:20]]
    for name in ("text", "domain", "general"):
        (tmp_path / name).mkdir()
        half = documents[:: 1 if name == "text" else 2]
        (tmp_path / name / "some.txt").write_text("\n\n".join(half), encoding="utf-8")
    lines = [line[:100] for line in itertools.chain(*(d.splitlines() for d in documents))][:48]
    (tmp_path / "held_out.txt").write_text(documents[-1], encoding="utf-8")
    (tmp_path / "texts.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (tmp_path / "labels").mkdir()
    for split in ("train", "dev"):
        rows = [json.dumps({"text": t, "label": "ab"[i % 2]}) + "\n" for i, t in enumerate(lines)]
        (tmp_path / "labels" / f"{split}.jsonl").write_text("".join(rows), encoding="utf-8")
    (tmp_path / "pairs").mkdir()
    for split in ("train", "dev"):
        rows = [json.dumps({"text": t[:40], "positive": t[40:]}) + "\n" for t in lines]
        (tmp_path / "pairs" / f"{split}.jsonl").write_text("".join(rows), encoding="utf-8")
    (tmp_path / "configs").mkdir()
    for path in (ROOT / "configs").glob("*.py"):
        text = SMALL_CONFIG.format(path=str(path), name=path.stem)
        (tmp_path / "configs" / path.name).write_text(text, encoding="utf-8")
    (tmp_path / "launch").symlink_to(ROOT / "launch")
    program = tmp_path / "bin" / "bert-jax"
    program.parent.mkdir()
    program.write_text(PROGRAM.format(python=sys.executable, small=SMALL), encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def do(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command of ours in this process, where compiled steps are kept; any other in a shell."""
    program, *args = shlex.split(line)
    if program == "bert-jax":
        if "*" in line:
            args = [str(p) for a in args for p in (sorted(Path().glob(a)) if "*" in a else [a])]
        if args[0] == "evaluate" and "--text" in args:
            args += shlex.split(SMALL_TEXT)
        assert call(*args, *shlex.split(SMALL.get(args[0], ""))) == 0, line
    else:
        with monkeypatch.context() as patched:
            patched.setenv("XLA_FLAGS", cheap_compiles.xla_flags(1))
            done = subprocess.run(["bash", "-ec", line], capture_output=True, text=True)
        assert done.returncode == 0, f"{line}\n{done.stderr[-2000:]}"


def test_each_guide_has_commands() -> None:
    expected = {"domain", "evaluate", "families", "from_scratch", "hub", "tokenizers", "tpu_pod"}
    expected |= {"gpu"}
    expected |= {"own_language", "own_language.ko", "distill", "embeddings"}
    assert set(GUIDES) == expected
    assert all(len(commands(guide)) >= 3 for guide in GUIDES)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: p.name)
def test_every_command_parses(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its flags exist, its values have their type, and its configs have the fields it changes."""
    monkeypatch.chdir(ROOT)
    text = path.read_text(encoding="utf-8").replace("\\\n", " ")
    for line in "".join(BLOCK.findall(text)).splitlines():
        if not line.startswith("bert-jax ") or " CONFIG " in line:
            continue
        name, *args = shlex.split(line, comments=True)[1:]
        parsed, extra = parse(COMMANDS[name], name, args)
        if extra and parsed.extra == "config":
            target = getattr(parsed, "config", None) or parsed.target  # type: ignore[attr-defined]
            change_config(from_python_file(target), extra, name)


@pytest.mark.slow
@pytest.mark.parametrize(
    "guide", ["from_scratch", pytest.param("families", marks=[SLOW, pytest.mark.nightly])]
)
def test_every_command_works(guide: str, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for line in commands(guide):
        do(line, monkeypatch)


@SLOW
@pytest.mark.nightly
def test_the_guide_to_a_domain_works_on_a_modernbert(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A local folder with the name on the Hub stands for it."""
    for line in (
        "bert-jax tokenizer text/*.txt --kind bpe --vocab-size 700 --out first",
        "bert-jax prepare text/*.txt --tokenizer first --segments full --length 64 --out rows",
        "bert-jax pretrain configs/tiny_modern.py --data.path rows --run.dir runs/modern",
        "bert-jax export runs/modern --format hf --out answerdotai/ModernBERT-base",
        *commands("domain"),
    ):
        do(line, monkeypatch)
    tokenizer = load_tokenizer(workspace / "longer/tokenizer")
    words = (workspace / "words.txt").read_text().split()
    assert words
    for word in words:
        assert 1 in (len(tokenizer.encode(word)), len(tokenizer.encode(f" {word}"))), word


@SLOW
@pytest.mark.parametrize(
    "guide",
    ["evaluate", *(pytest.param(g, marks=pytest.mark.nightly) for g in ("distill", "embeddings"))],
)
def test_every_command_works_on_a_checkpoint(
    guide: str, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for line in (
        "bert-jax tokenizer text/*.txt --kind wordpiece --vocab-size 700 --out first",
        "bert-jax prepare text/*.txt --tokenizer first --segments nsp --length 64 --out rows",
        "bert-jax pretrain configs/bert_base.py --data.path rows --run.dir runs/demo",
        "bert-jax export runs/demo --format hf --out bert-base-uncased",
        *commands(guide),
    ):
        do(line, monkeypatch)


def test_the_guide_to_a_language_has_the_same_commands_in_both_languages() -> None:
    assert commands("own_language") == commands("own_language.ko")


@SLOW
def test_every_command_works_on_korean_text(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From text to a filled mask and a classifier, with the vocabulary that the guide names."""
    (workspace / "data").symlink_to(ROOT / "data")
    monkeypatch.setitem(SMALL, "tokenizer", "")
    monkeypatch.setitem(SMALL, "finetune", "--run.epochs 1 --data.batch-size 8")
    for line in commands("own_language"):
        do(line, monkeypatch)
    predicted = (workspace / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    assert {json.loads(line)["label"] for line in predicted} <= {"좋음", "나쁨"}
    corpus = json.loads((workspace / "corpus" / "corpus.json").read_text())
    assert corpus["language"] == "ko"
    assert corpus["train"]["sentences"] == 5 * corpus["train"]["documents"] == 5 * 23


@SLOW
@pytest.mark.nightly
def test_every_command_works_with_several_processes(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("libtpu", reason="pip install 'jax[tpu]'")
    for line in (
        "bert-jax tokenizer text/*.txt --kind wordpiece --vocab-size 700 --out tok",
        "bert-jax prepare text/*.txt --tokenizer tok --segments nsp --length 64 --out corpus",
        *commands("tpu_pod"),
    ):
        do(line, monkeypatch)
