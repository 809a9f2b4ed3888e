"""Fields that would change nothing are refused in a new run, and only there."""

from pathlib import Path
from typing import Any

import pytest

from bert_jax.config import (
    BERT,
    Contrastive,
    Experiment,
    ReplacedTokens,
    Supervised,
    from_python_file,
    read_config,
    replace,
    save_config,
)
from bert_jax.training.unused_fields import refuse_fields_of_other_losses, refuse_unused_fields
from tests.helpers.paths import ROOT

LABELS = Supervised()
SIMCSE = Contrastive(task="simcse")
TASK = Supervised(task="qa", family="electra", span="joint")
GROUPED = dict(data=dict(group_by_length=True))
UNUSED: dict[str, tuple[Any, dict[str, Any], str]] = {
    "n-grams of one word": (
        BERT.objective,
        dict(objective=dict(masking=dict(granularity="ngram"))),
        "max_ngram 1, which masks whole words: set",
    ),
    "epochs of a corpus": (BERT.objective, dict(run=dict(epochs=3)), "run.epochs is 3"),
    "the best of pre-training": (SIMCSE, dict(run=dict(select="last")), "run.select is 'last'"),
    "stages of labeled rows": (TASK, dict(data=dict(stages="64=1")), "data.stages is '64=1'"),
    "a corpus by length": (BERT.objective, GROUPED, "data.group_by_length is on"),
    "pairs by length": (Contrastive(), GROUPED, "data.group_by_length is on"),
    "a mix of pairs": (Contrastive(), dict(data=dict(mix="a,b")), "data.mix is 'a,b'"),
    "two heads for spans": (
        TASK,
        dict(objective=dict(head="prediction")),
        "add --objective.span linear",
    ),
    "a temperature that is not learned": (
        SIMCSE,
        dict(objective=dict(temperature=0.005, learn_temperature=True)),
        "expected at least 0.01",
    ),
    "a prompt of a corpus": (
        SIMCSE,
        dict(objective=dict(query_prompt="query: ")),
        "have no prompts",
    ),
    "a margin without its loss": (SIMCSE, dict(objective=dict(margin=0.2)), "margin is 0.2, and"),
    "the weight of detection": (
        ReplacedTokens(weight=1.0),
        dict(objective=dict(target="all_tokens_mlm", weight=50.0)),
        "add --objective.weight 1",
    ),
    "relations of a teacher": (
        TASK,
        dict(distill=dict(relation_weight=2)),
        "relation_weight is 2, and the run is fine-tuning, .*; it learns the teacher's outputs",
    ),
    "a mean of the first token": (LABELS, dict(objective=dict(pooling="mean")), "the head pooler"),
    "a scale of classes": (LABELS, dict(objective=dict(scale=5)), "the task is classification"),
    "windows of texts": (LABELS, dict(objective=dict(stride=64)), "objective.stride is 64"),
    "candidates of texts": (LABELS, dict(objective=dict(max_documents=4)), "max_documents is 4"),
    "a listwise class": (LABELS, dict(objective=dict(rank_loss="listwise")), "rank_loss is 'listw"),
    "strict spans": (TASK, dict(objective=dict(tag_scoring="strict")), "tag_scoring is 'strict'"),
    "windows that are not read": (LABELS, dict(objective=dict(max_windows=2)), "long is truncate"),
    "momentum of Adam": (
        BERT.objective,
        dict(optim=dict(momentum=0.9)),
        r"optim.momentum is 0.9, and optim.name is bert_adam, .* \(default: 0.95\)",
    ),
    "momentum of adapters": (
        BERT.objective,
        dict(optim=dict(name="muon", momentum=0.9), lora=dict(rank=2)),
        "lora.rank is 2, which does not use it",
    ),
    "adapters without a rank": (LABELS, dict(lora=dict(alpha=32.0)), "lora.rank is None"),
    "spikes that are not watched": (
        SIMCSE,
        dict(guard=dict(spike="off", spike_factor=3.0)),
        "guard.spike is off",
    ),
    "positions of no model": (
        BERT.objective,
        dict(run=dict(init_positions="config")),
        "give --init MODEL, or --run.init-positions model",
    ),
    "positions of labeled rows": (
        LABELS,
        dict(run=dict(init_positions="config")),
        "the run is fine-tuning, which does not use it",
    ),
    "a part of dev": (Contrastive(), dict(run=dict(eval_batches=2)), "run.eval_batches is 2, and"),
    "a teacher of pairs": (Contrastive(), dict(distill=dict(weight=0.2)), "there is no teacher"),
    "negatives of a corpus": (SIMCSE, dict(objective=dict(max_negatives=2)), "no negatives"),
}


@pytest.mark.parametrize("name", UNUSED)
def test_a_new_run_refuses_them_and_a_run_that_has_begun_goes_on(name: str, tmp_path: Path) -> None:
    objective, changes, message = UNUSED[name]
    base = replace(BERT, objective=objective, run=dict(dir=str(tmp_path)))
    refuse_unused_fields(base)
    config: Experiment = replace(base, **changes)
    with pytest.raises(ValueError, match=message):
        refuse_unused_fields(config)
    save_config(config, tmp_path / "config.json")
    assert read_config(tmp_path / "config.json") == config
    refuse_unused_fields(config)


def test_losses_of_scored_pairs_compare_by_cosine(tmp_path: Path) -> None:
    config = replace(BERT, objective=Contrastive(normalize=False), run=dict(dir=str(tmp_path)))
    refuse_fields_of_other_losses(replace(config, objective=dict(temperature=1.0)), "ranking")
    with pytest.raises(ValueError, match="which is for cosines"):
        refuse_fields_of_other_losses(config, "ranking")
    with pytest.raises(ValueError, match=r"the loss cosent compares .*: add --objective.normalize"):
        refuse_fields_of_other_losses(config, "cosent")
    (tmp_path / "seed_0").mkdir()
    save_config(config, tmp_path / "seed_0" / "config.json")
    refuse_fields_of_other_losses(config, "cosent")


@pytest.mark.parametrize(
    ("field", "users"),
    [
        (dict(margin=0.2), {"margin"}),
        (dict(temperature=0.1), {"ranking", "cosent"}),
        (dict(max_negatives=1), {"ranking"}),
        (dict(learn_temperature=True), {"ranking"}),
        (dict(symmetric=True), {"ranking"}),
    ],
)
def test_a_loss_refuses_the_fields_of_others(field: dict, users: set, tmp_path: Path) -> None:
    config = replace(BERT, objective=Contrastive(**field), run=dict(dir=str(tmp_path)))
    for loss in ("ranking", "cosent", "cosine", "margin"):
        if loss in users:
            refuse_fields_of_other_losses(config, loss)
        else:
            with pytest.raises(ValueError, match=f"and the loss is {loss}, which does not use it"):
                refuse_fields_of_other_losses(config, loss)


@pytest.mark.parametrize("file", sorted((ROOT / "configs").glob("*.py")), ids=lambda f: f.stem)
def test_no_shipped_config_has_a_field_without_effect(file: Path, tmp_path: Path) -> None:
    """The later phases of ModernBERT start from the phase before."""
    config = from_python_file(file)
    phase = config.run.init_positions == "config"
    run = dict(dir=str(tmp_path / "run"), init="model" if phase else config.run.init)
    refuse_unused_fields(replace(config, run=run))


def test_a_cooldown_of_another_schedule_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It may be that of the config, whose schedule alone was changed on the command line."""
    optim = dict(schedule="roberta", cooldown_ratio=0.5)
    refuse_unused_fields(replace(BERT, optim=optim, run=dict(dir=str(tmp_path))))
    assert "optim.cooldown_ratio is 0.5 and has no effect: optim.schedule is rob" in caplog.text
