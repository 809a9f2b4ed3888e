"""Every command on a tiny run of every family, as a user types it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from bert_jax import load
from bert_jax.cli import main as cli
from tests.helpers import labeled_rows
from tests.helpers.cli_runner import call
from tests.helpers.corpora import write_inputs
from tests.helpers.paths import ROOT

FAMILIES = {  # kind of tokenizer and segments that the configs ask for
    "bert": ("wordpiece", "nsp"),
    "albert": ("unigram", "sop"),
    "roberta": ("bpe", "full"),
    "electra": ("wordpiece", "electra"),
    "spanbert": ("wordpiece", "single"),
    "modern": ("bpe", "full"),
    "modern_electra": ("bpe", "full"),
}
FIRST = {"tokenizer", "prepare", "pretrain", "finetune"}  # they make what the others need
ELSEWHERE = {"demo", "plan"}  # minutes of training; a TPU's compiler (tests/perf/test_plan.py)
LAYERS = {"modern": 2, "modern_electra": 4}  # the first has no norm; a generator has half of them
SIZES = (
    *("--encoder.hidden-size", 32, "--encoder.heads", 2),
    *("--encoder.max-length", 64, "--data.batch-size", 4),  # one row per device
)
SHORT = ("--run.steps", 2, "--run.log-every", 1)


NIGHTLY = set(FAMILIES) - {"spanbert"}  # it has one head more than BERT


@pytest.fixture(
    scope="module",
    params=[pytest.param(f, marks=[pytest.mark.nightly] * (f in NIGHTLY)) for f in FAMILIES],
)
def home(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `text.txt`, `tokenizer`, `corpus`, `run` (pre-trained for two steps with one
    row each), `tuned` (fine-tuned from it) and the rows of its task, `data`."""
    kind, segments = FAMILIES[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    text, _ = write_inputs(folder, 40)
    assert call("tokenizer", text, kind=kind, vocab_size=300, out=folder / "pieces") == 0
    options = dict(tokenizer=folder / "pieces", segments=segments, length=32, duplicates=1)
    assert call("prepare", text, out=folder / "corpus", **options) == 0
    recipe = ROOT / "configs" / f"tiny_{request.param}.py"
    run = ("--data.path", folder / "corpus", "--run.dir", folder / "run")
    sizes = ("--encoder.layers", LAYERS.get(request.param, 1), *SIZES)
    every = ("--run.save-every", 1, "--run.eval-batches", 1)
    assert call("pretrain", recipe, *run, *sizes, *SHORT, *every) == 0
    rows = [{"text": f"it was {w} {i}", "label": w} for i in range(8) for w in ("good", "bad")]
    labeled_rows.write_task_dir(folder / "data", rows)
    where = ("--init", folder / "run", "--task", "classification", "--data", folder / "data")
    tune = ("--run.dir", folder / "tuned", "--data.batch-size", 4, *SHORT)
    assert call("finetune", ROOT / "configs" / "finetune.py", *where, *tune) == 0
    pairs = [{"text": f"it was {i}", "positive": f"it was good {i}"} for i in range(4)]
    labeled_rows.write_jsonl(folder / "pairs.jsonl", pairs)
    return folder


def commands(home: Path, out: Path) -> Iterator[tuple[object, ...]]:
    """Every other command with what it needs."""
    run, tuned, text = home / "run", home / "tuned", home / "text.txt"
    mask = load(run).tokenizer.mask_token
    task = ("--task", "classification", "--data", home / "data")
    yield "tokenize", run, "it was good"
    yield "mine", run, home / "pairs.jsonl", "--margin", 0, "--out", out / "mined.jsonl"
    yield "predict", tuned, home / "data" / "dev.jsonl", "--out", out / "answers.jsonl"
    yield "fill", run, f"it was {mask} ."
    yield "evaluate", run, "--data", home / "corpus"
    yield "evaluate", run, "--text", text, "--max-rows", 50, "--max-words", 20
    yield "embed", run, text, "--truncate", "--out", out / "features.npz"
    yield "embed", run, text, "--long", "mean", "--out", out / "windows.npz"
    yield "embed", run, text, "--truncate", "--index", out / "index"
    yield "search", out / "index", "it was good", "--top", 1
    yield "probe", run, *task, "--out", out / "probe"
    yield "export", run, "--format", "hf", "--out", out / "hf"
    yield "export", tuned, "--format", "hf", "--out", out / "tuned_hf"
    yield "export", run, "--format", "orbax", "--out", out / "orbax"
    yield "export", tuned, "--format", "stablehlo", "--out", out / "stablehlo"
    yield "import", out / "hf", "--out", out / "imported"
    yield "inspect", tuned
    yield "report", run, tuned, "--out", out / "report"
    yield "replay", run, 1
    yield "replay", tuned, 1
    family = home.name.rstrip("0123456789")
    sizes = ("--encoder.layers", LAYERS.get(family, 1), *SIZES[:4])
    recipe = ROOT / "configs" / f"tiny_{family}.py"
    yield "bench", recipe, "--steps", 1, "--batch-size", 4, "--length", 32, *sizes


@pytest.mark.slow
def test_every_command_works_on_a_tiny_run(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    failed, tried = {}, set()
    for command in commands(home, tmp_path):
        tried.add(command[0])
        try:
            status: object = call(*command)
        except Exception as e:  # all failures are listed, not only the first
            status = repr(e)
        if status:
            failed[" ".join(map(str, command))] = (status, capsys.readouterr().err[-300:])
    assert not failed
    assert tried | FIRST | ELSEWHERE == set(cli.COMMANDS)
