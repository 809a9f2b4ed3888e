"""Runs on a packed corpus."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bert_jax.cli import main as cli
from bert_jax.config import Experiment, replace
from bert_jax.data.corpus import open_corpus
from bert_jax.data.prepare import prepare_corpus
from bert_jax.data.tokenization.training import train_tokenizer
from bert_jax.training.pretrain import pretrain
from bert_jax.training.replay import replay
from tests.helpers import tiny_configs
from tests.helpers.compare import metric_lines
from tests.helpers.marks import NIGHTLY
from tests.helpers.paths import SAMPLE


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """corpora/32, corpora/64: packed rows of sequence pairs; plain/32: without."""
    folder = tmp_path_factory.mktemp("packed")
    text = [d[:600] for d in SAMPLE.read_text(encoding="utf-8").split("\n\n")[:60]]
    (folder / "text.txt").write_text("\n\n".join(text), encoding="utf-8")
    train_tokenizer(text, "wordpiece", 400).save(folder / "tokenizer")
    for name, length, pack in (("corpora", 16, 4), ("corpora", 32, 3), ("plain", 32, 0)):
        args = [str(folder / "text.txt")], folder / "tokenizer", "sop", length
        out = folder / name / str(length)
        prepare_corpus(*args, out, duplicates=1, progress=False, pack=pack)
    return folder


def config(prepared: Path, run: Path, family: str = "bert", **changes: Any) -> Experiment:
    base = replace(
        tiny_configs.FAMILIES[family],
        data=dict(path=f"{prepared}/corpora/32", length=None),
        run=dict(dir=str(run), eval_batches=1),
        mesh=dict(data=4),
    )
    return replace(base, **changes)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["bert", pytest.param("electra", marks=NIGHTLY)])
def test_a_packed_run_accumulates_gradients_on_a_mesh_and_can_be_replayed(
    prepared: Path, tmp_path: Path, family: str
) -> None:
    """Step 5 replayed from the checkpoint of step 3 has the same metrics, bit for bit."""
    experiment = config(prepared, tmp_path / "run", family=family, mesh=dict(data=2, fsdp=2))
    assert pretrain(replace(experiment, optim=dict(accumulate=2))) is None
    assert all(np.isfinite(line["loss"]) for line in metric_lines(tmp_path / "run"))
    result = replay(tmp_path / "run", 5)
    assert result.start == 3
    assert result.logged is not None
    assert not result.differences


@pytest.mark.slow
def test_stages_of_several_lengths_train_on_packed_rows(prepared: Path, tmp_path: Path) -> None:
    staged = dict(path=f"{prepared}/corpora/{{length}}", stages="16x8=2,32x4=1")
    pretrain(config(prepared, tmp_path / "run", data=staged))
    assert [line["step"] for line in metric_lines(tmp_path / "run")] == [1, 2, 3, 4, 5, 6]


def test_the_prepare_command_packs_and_prints_a_summary(prepared: Path, capsys: Any) -> None:
    """`--pack` without a number allows 3 sequences more than fit at full length."""
    args = ["prepare", str(prepared / "text.txt"), "--tokenizer", str(prepared / "tokenizer")]
    args += ["--segments", "sop", "--length", "16", "--row-length", "48"]
    args += ["--out", str(prepared / "packed"), "--pack", "--duplicates", "2"]
    with pytest.raises(SystemExit) as exit_info:
        cli.main(args)
    assert exit_info.value.code == 0
    assert open_corpus(prepared / "packed").info.packed == 6
    lines = capsys.readouterr().out.splitlines()
    train, validation = (x for x in lines if x.startswith(("train: ", "validation: ")))
    numbers = r"\d+ tokens, \d+\.\d% padding"
    counts = r"57 documents, \d+ rows of \d+ sequences in 2 duplicates"
    assert re.fullmatch(rf"train: {counts}, {numbers}, \d+\.\d% of pairs with label 1", train)
    assert re.search(rf"3 documents, \d+ rows of \d+ sequences, {numbers}", validation)


def test_packed_and_unpacked_corpora_do_not_mix(prepared: Path, tmp_path: Path) -> None:
    mix = dict(path=None, mix=f"{prepared}/corpora/32=1,{prepared}/plain/32=1")
    with pytest.raises(ValueError, match=r"corpora/32 has packed rows, but .*plain/32 has not"):
        pretrain(config(prepared, tmp_path / "run", data=mix))
