"""Stages: batches of one shape after another, each from a step that is known before."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from bert_jax.config import (
    BERT,
    ROBERTA,
    Experiment,
    Stage,
    from_dict,
    moved_stage,
    replace,
    to_dict,
)
from bert_jax.data import mixture as corpora
from bert_jax.data.corpus import Corpus, open_corpus
from bert_jax.data.loader import Loader, StagedLoader
from bert_jax.data.prepare import prepare_corpus
from bert_jax.data.tokenization.training import train_tokenizer
from bert_jax.training.pretrain import pretrain
from tests.helpers import tiny_configs
from tests.helpers.compare import metric_lines
from tests.helpers.paths import SAMPLE


def stages(text: str, **changes: dict) -> tuple[Stage, ...]:
    return replace(BERT, **{"data": dict(stages=text, batch_size=64), **changes}).stages


def test_shares_are_of_the_schedule_and_count_against_their_sum() -> None:
    expected = (Stage(0, 128, 256), Stage(900_000, 512, 64))
    assert stages("128x256=0.9,512=0.1") == stages("128x256=9,512=1") == expected
    longer = dict(optim=dict(decay_steps=1000), run=dict(steps=5000))
    assert [s.start for s in stages("128=5,256=3,512=2", **longer)] == [0, 500, 800]


def test_without_stages_there_is_one() -> None:
    assert BERT.stages == (Stage(0, None, 256),)
    assert replace(BERT, data=dict(length=128)).stages == (Stage(0, 128, 256),)


def test_a_config_with_stages_survives_json() -> None:
    config = replace(BERT, data=dict(stages="128x256=0.9,512=0.1", length=512))
    assert from_dict(Experiment, json.loads(json.dumps(to_dict(config)))) == config


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        *((dict(data=dict(stages=s)), f"has '{s.split(',')[-1]}': expected LENGTH") for s in (
            "", "128", "128=", "128=0", "128=-1", "128=nan", "128x=1", "128x0=1", "4=1", "128=1,x"
        )),
        (dict(data=dict(stages="128=1,600=1")), "600 is beyond the model's encoder.max_length 512"),
        (dict(data=dict(stages="128=1,512x6=1"), optim=dict(accumulate=4)), "6 is not divisible"),
        (dict(data=dict(stages="128=1", length=64)), "data.length is 64, but .* leave data.length"),
    ],
)  # fmt: skip
def test_stages_that_cannot_be_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(BERT, **changes)


def staged() -> StagedLoader:
    """Rows of 32 tokens by 8 for three steps, then by 4 of 40, then by 2."""
    shapes = [(0, 8, 32), (3, 4, 40), (5, 2, 32)]
    return StagedLoader(
        [(s, Loader([tiny_configs.Rows(20)], b, n, 0, seed=s)) for s, b, n in shapes]
    )


def test_the_stream_from_any_step_is_the_look_up() -> None:
    """Stages end between two steps of a stream that reads ahead."""
    shapes = [staged()[step]["tokens"].shape for step in range(7)]
    assert shapes == [(8, 32)] * 3 + [(4, 40)] * 2 + [(2, 32)] * 2
    for start in range(7):
        stream = staged().iterate(start)
        for step in range(start, 9):
            streamed, looked_up = next(stream), staged()[step]
            assert all(np.array_equal(streamed[k], looked_up[k]) for k in looked_up)


def test_a_stage_begins_with_its_own_first_batch() -> None:
    for start, batches in staged().stages:
        assert np.array_equal(staged()[start]["row"], batches[0]["row"])


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """corpora/16, corpora/32: the same text in short rows and in long ones; other/16."""
    folder = tmp_path_factory.mktemp("stages")
    text = [d[:600] for d in SAMPLE.read_text(encoding="utf-8").split("\n\n")[:60]]
    (folder / "text.txt").write_text("\n\n".join(text), encoding="utf-8")
    for name, size in (("corpora", 400), ("other", 300)):
        train_tokenizer(text, "wordpiece", size).save(folder / f"{name}-tokenizer")
        for length in (16, 32):
            out = folder / name / str(length)
            args = ([str(folder / "text.txt")], folder / f"{name}-tokenizer", "nsp", length, out)
            prepare_corpus(*args, duplicates=1, progress=False)
    return folder


def config(prepared: Path, run: Path, **data: str) -> Experiment:
    return replace(
        tiny_configs.FAMILIES["bert"],
        data=dict(path=f"{prepared}/corpora/{{length}}", stages="16x8=2,32x4=1", length=None)
        | data,
        optim=dict(decay_steps=6),
        run=dict(dir=str(run), eval_batches=1),
    )


@pytest.mark.slow
def test_a_run_goes_through_its_stages_and_resumes_before_a_new_one(
    prepared: Path, tmp_path: Path
) -> None:
    """Four steps of short rows and two of long ones, whole and in parts: metrics bit for bit."""
    whole = config(prepared, tmp_path / "whole")
    assert pretrain(whole) is None
    for steps in (3, 6):
        pretrain(replace(config(prepared, tmp_path / "parts"), run=dict(steps=steps)))
    assert [line["step"] for line in metric_lines(tmp_path / "whole")] == [1, 2, 3, 4, 5, 6]
    parts, at_once = metric_lines(tmp_path / "parts"), metric_lines(tmp_path / "whole")
    assert [line["loss"] for line in parts] == [line["loss"] for line in at_once]
    assert parts[-1] == at_once[-1]
    saved = json.loads((tmp_path / "whole" / "config.json").read_text())
    assert saved["data"]["length"] == 32
    assert saved["data"]["corpus"].count("+") == 1


@pytest.mark.parametrize(
    ("steps", "longer", "moved"),
    [
        (0, 200, None),
        (90, 200, None),  # the first stage goes on
        (91, 200, (90, 180)),
        (100, 101, (90, 91)),
        (100, 100, None),
        (85, 90, (90, 81)),  # it would have ended
        (81, 90, None),
    ],
)
def test_stages_that_have_begun_may_not_move(
    steps: int, longer: int, moved: tuple[int, int] | None
) -> None:
    """Of a run of 100 steps with the shares 0.9 and 0.1."""
    before, after = (stages("128=0.9,512=0.1", run=dict(steps=n)) for n in (100, longer))
    found = moved_stage(before, after, steps)
    assert (found and tuple(stage.start for stage in found)) == moved


@pytest.mark.slow
@pytest.mark.nightly
def test_a_finished_run_with_stages_gets_no_more_steps(prepared: Path, tmp_path: Path) -> None:
    """Its short rows would go on, and its long ones begin anew."""
    experiment = replace(config(prepared, tmp_path / "run"), optim=dict(decay_steps=None))
    pretrain(replace(experiment, run=dict(steps=3)))
    with pytest.raises(ValueError, match=r"run\.steps was 3, now 6, .* at step 4 instead of 2\."):
        pretrain(replace(experiment, run=dict(steps=6)))
    assert pretrain(replace(experiment, run=dict(steps=3))) is None


def test_every_stage_reads_its_own_corpus_and_the_last_one_evaluates(
    prepared: Path, tmp_path: Path
) -> None:
    experiment = replace(config(prepared, tmp_path), encoder=dict(pad_id=0))
    opened = corpora.open_stages(experiment)
    assert [c.path.name for mixture in opened for c in mixture.corpora] == ["16", "32"]
    assert corpora.training_loader(experiment, opened)[3]["tokens"].shape == (8, 16)
    assert corpora.training_loader(experiment, opened)[4]["tokens"].shape == (4, 32)
    parts: Any = corpora.training_loader(
        replace(experiment, data=dict(threads=8)), opened, [(0, 4), (2, 4), (3, 4)]
    )
    assert {part.threads for _, stage in parts.stages for part in stage.parts} == {3}
    evaluated = next(corpora.evaluation_loader(experiment, opened).one_pass(1))
    assert evaluated["tokens"].shape == (4, 32)


def test_the_length_is_filled_in_without_stages_too(prepared: Path, tmp_path: Path) -> None:
    experiment = config(prepared, tmp_path, stages=None, length=32)
    ((_, (opened,), _),) = corpora.open_stages(experiment)
    assert opened.path == prepared / "corpora/32"


@pytest.mark.parametrize(("base", "offset"), [(ROBERTA, 1), (BERT, 0)])
def test_positions_begin_after_the_padding_id_of_the_corpus(
    base: Experiment, offset: int, prepared: Path
) -> None:
    """WordPiece pads with 0, not with 1 as RoBERTa's own vocabulary does."""
    opened = [open_corpus(prepared / "corpora/16")]
    encoder = corpora.fill_in_config(base, opened).encoder
    assert (encoder.pad_id, encoder.position_offset) == (0, offset)
    assert encoder.position_rows == encoder.max_length + offset


def test_stages_of_one_corpus_shuffle_it_differently(prepared: Path, tmp_path: Path) -> None:
    path = f"{prepared}/corpora/16"
    experiment = config(prepared, tmp_path, path=path, stages="16x8=1,16x16=1")
    batches = corpora.training_loader(experiment, corpora.open_stages(experiment))
    assert batches[3]["tokens"].shape == (16, 16)
    assert not np.array_equal(batches[0]["row"], batches[3]["row"][:8])


@pytest.mark.parametrize("weights", [None, (1, 5)])
def test_a_row_has_other_masks_in_every_stage_of_one_corpus(
    weights: tuple[int, int] | None, prepared: Path, tmp_path: Path
) -> None:
    """Masks depend on the row and the epoch, so no pair of these comes twice; the epochs of a run
    of one stage are counted from 0, as those of the first stage are."""
    path = f"{prepared}/corpora/16"
    data = dict(path=path) if weights is None else dict(path=None)
    data |= dict(mix=weights and ",".join(f"{path}={w}" for w in weights), length=None)
    run = dict(optim=dict(decay_steps=90))
    one, three = (
        replace(config(prepared, tmp_path), data=data | dict(stages=text), **run)
        for text in ("16x8=1", "16x8=1,16x16=1,16x8=1")
    )
    whole = corpora.training_loader(one, corpora.open_stages(one))
    staged = corpora.training_loader(three, corpora.open_stages(three))
    batches = [staged[step] for step in range(90)]
    pairs = [p for b in batches for p in zip(b["row"].tolist(), b["epoch"].tolist(), strict=True)]
    assert len(set(pairs)) == len(pairs)
    assert all(np.array_equal(batches[i][k], whole[i][k]) for i in range(30) for k in whole[i])
    assert whole[0]["epoch"].tolist() == [0] * 8


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (dict(path="{folder}/corpora/16"), "rows of 16 and 32 tokens, but .* not contain {length}"),
        (dict(stages="8=1,32=1"), "corpora/8 is not a corpus"),
        (dict(path="{folder}/corpora/32", stages="16=1"), "data.stages has 16, but the corpus has"),
        (dict(path=None), "expected either --data.path CORPUS or --data.mix"),
        (
            dict(path=None, mix="{folder}/corpora/{length}=1,{folder}/other/{length}=1"),
            "other/16 and .*corpora/16 were prepared with different tokenizers",
        ),
    ],
)
def test_corpora_that_do_not_fit_their_stages_are_refused(
    data: dict, message: str, prepared: Path, tmp_path: Path
) -> None:
    named = {k: v and v.replace("{folder}", str(prepared)) for k, v in data.items()}
    with pytest.raises(ValueError, match=message):
        pretrain(config(prepared, tmp_path / "run", **named))
    assert not (tmp_path / "run").exists()


def test_each_shape_is_checked_against_the_devices(prepared: Path, tmp_path: Path) -> None:
    experiment = config(prepared, tmp_path / "run", stages="16x8=1,32x6=1")
    experiment = replace(experiment, mesh=dict(data=4))
    assert jax.device_count() == 4
    with pytest.raises(ValueError, match="batch_size 6 is not divisible by 4 devices"):
        pretrain(experiment)


def test_a_mix_of_two_kinds_of_sentence_pairs_is_refused(prepared: Path) -> None:
    """Label 1 means a random segment in one of them and a swapped one in the other."""
    opened = open_corpus(prepared / "corpora" / "32")
    nsp, sop = (
        Corpus(opened.path, dataclasses.replace(opened.info, segments=kind))
        for kind in ("nsp", "sop")
    )
    config = tiny_configs.FAMILIES["bert"]
    stage = config.stages[0]
    apart = [corpora.StageData(stage, [nsp], None), corpora.StageData(stage, [sop], None)]
    corpora.check_same_pairs(config, apart)
    mixed = [corpora.StageData(stage, [nsp, sop], [1.0, 1.0])]
    with pytest.raises(ValueError, match=r"data\.mix has .* with nsp and .* with sop"):
        corpora.check_same_pairs(config, mixed)
    corpora.check_same_pairs(replace(config, objective=dict(sentence_pair=False)), mixed)
