"""Which run directories can be resumed."""

from pathlib import Path

import pytest

from bert_jax.checkpoint import run_dir
from bert_jax.config import replace
from tests.helpers import labeled_rows, tiny_configs

TOKENIZER = labeled_rows.trained_tokenizer("wordpiece")


def test_resume_may_change_resumable_fields_only(tmp_path: Path) -> None:
    experiment = replace(tiny_configs.FAMILIES["bert"], run=dict(dir=str(tmp_path)))
    run_dir.write_run_dir(tmp_path, experiment, TOKENIZER)
    resumed = replace(
        experiment,
        run=dict(steps=99, lock_timeout=60.0, max_to_keep=1),
        data=dict(threads=experiment.data.threads + 1),
    )
    run_dir.check_run_dir(tmp_path, resumed, TOKENIZER)
    other = replace(resumed, run=dict(seed=experiment.run.seed + 1))
    with pytest.raises(ValueError, match=r"another config: run\.seed was 0, now 1\. Choose") as e:
        run_dir.check_run_dir(tmp_path, other, TOKENIZER)
    assert "lock_timeout" not in str(e.value)


def test_a_file_that_another_machine_wrote_may_appear_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network disk knows of it after the folder is listed."""
    file = tmp_path / "config.json"
    list_folder = Path.iterdir

    def listing(folder: Path) -> object:
        file.touch()
        return list_folder(folder)

    monkeypatch.setattr(run_dir, "SHARED_WAIT", 0.0)
    assert not run_dir._appears(tmp_path / "other/config.json")
    monkeypatch.setattr(run_dir, "SHARED_WAIT", 60.0)
    monkeypatch.setattr(run_dir.time, "sleep", lambda _: None)
    monkeypatch.setattr(Path, "iterdir", listing)
    assert run_dir._appears(file)


def test_data_and_model_are_known_by_their_content_not_by_their_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    first = replace(
        tiny_configs.FAMILIES["bert"],
        data=dict(path=str(tmp_path / "d"), corpus="hash"),
        run=dict(dir="run", init=str(tmp_path / "m")),
    )
    run_dir.write_run_dir(Path("run"), first, TOKENIZER)

    def resume(data: dict[str, str | None], init: str = "m") -> None:
        run_dir.check_run_dir(
            Path("run"), replace(first, data=data, run=dict(init=init)), TOKENIZER
        )

    for path in ("d", "d/", "./d", "/elsewhere/staged"):
        resume(dict(path=path))
    resume(dict(path="d"), init="./m/")
    with pytest.raises(ValueError, match=r"another config: data\.corpus was 'hash', now 'x'"):
        resume(dict(path=str(tmp_path / "d"), corpus="x"))
    with pytest.raises(ValueError, match=r"run\.init was '.*/m', now 'other'"):
        resume(dict(path="d"), init="other")
    mixed = replace(first, data=dict(path=None, mix="a=1,b=2"), run=dict(dir="mixed"))
    run_dir.write_run_dir(Path("mixed"), mixed, TOKENIZER)
    moved = replace(mixed, data=dict(mix="/x/a=1,/x/b=2"))
    run_dir.check_run_dir(Path("mixed"), moved, TOKENIZER)
    with pytest.raises(ValueError, match=r"data\.mix was"):
        run_dir.check_run_dir(Path("mixed"), replace(mixed, data=dict(mix="a=2,b=2")), TOKENIZER)
    by_size = replace(mixed, data=dict(mix="a,b", mix_exponent=1.0), run=dict(dir="by_size"))
    run_dir.write_run_dir(Path("by_size"), by_size, TOKENIZER)
    moved = replace(by_size, data=dict(mix="/x/a,/x/b"))
    run_dir.check_run_dir(Path("by_size"), moved, TOKENIZER)


def test_stages_stay_where_they_were_in_the_steps_that_are_done(tmp_path: Path) -> None:
    """Unless the length of the schedule is fixed, they are shares of `run.steps`."""
    data, run = dict(stages="16x8=9,32x4=1", length=None), dict(dir=str(tmp_path), steps=100)
    experiment = replace(tiny_configs.FAMILIES["bert"], data=data, run=run)
    longer = replace(experiment, run=dict(steps=200))
    run_dir.write_run_dir(tmp_path, experiment, TOKENIZER)
    run_dir.check_stages(tmp_path / "config.json", experiment, 100)
    run_dir.check_stages(tmp_path / "config.json", longer, 90)
    with pytest.raises(ValueError, match="4 rows of 32 tokens would begin at step 180 instead of"):
        run_dir.check_stages(tmp_path / "config.json", longer, 100)
    fixed, longer = (replace(e, optim=dict(decay_steps=100)) for e in (experiment, longer))
    run_dir.write_run_dir(tmp_path, fixed, TOKENIZER)
    run_dir.check_stages(tmp_path / "config.json", longer, 100)


def test_rows_grouped_by_length_keep_the_number_of_steps(tmp_path: Path) -> None:
    run = dict(dir=str(tmp_path), steps=100)
    experiment = replace(tiny_configs.FAMILIES["bert"], data=dict(group_by_length=True), run=run)
    longer = replace(experiment, run=dict(steps=200))
    run_dir.write_run_dir(tmp_path, experiment, TOKENIZER)
    run_dir.check_grouped(tmp_path / "config.json", experiment, 50)
    run_dir.check_grouped(tmp_path / "config.json", longer, 0)
    with pytest.raises(ValueError, match=r"was 100, now 200, and data\.group_by_length divides"):
        run_dir.check_grouped(tmp_path / "config.json", longer, 50)
    plain = replace(longer, data=dict(group_by_length=False))
    run_dir.check_grouped(tmp_path / "config.json", plain, 50)


def test_a_base_of_the_hub_may_be_a_local_copy_of_the_same_weights(tmp_path: Path) -> None:
    base = tiny_configs.FAMILIES["bert"]
    lora, hub = dict(rank=2, base="abc"), dict(init="owner/name", init_commit="123")
    first = replace(base, lora=lora, run=dict(dir=str(tmp_path), **hub))
    run_dir.write_run_dir(tmp_path, first, TOKENIZER)
    local = dict(init="/copy", init_commit=None)
    run_dir.check_run_dir(tmp_path, replace(first, run=local), TOKENIZER)
    with pytest.raises(ValueError, match="trained beside another model"):
        run_dir.check_run_dir(tmp_path, replace(first, run=local, lora=dict(base="x")), TOKENIZER)


def test_a_folder_with_other_files_is_not_a_run_directory(tmp_path: Path) -> None:
    experiment = replace(tiny_configs.FAMILIES["bert"], run=dict(dir=str(tmp_path)))
    (tmp_path / ".hidden").touch()
    run_dir.check_run_dir(tmp_path, experiment, TOKENIZER)
    (tmp_path / "a.txt").touch()
    with pytest.raises(ValueError, match="is not empty and is not a run directory"):
        run_dir.check_run_dir(tmp_path, experiment, TOKENIZER)
