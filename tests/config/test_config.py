"""Configs: published parameter counts, JSON round trip, refused values."""

import json
import re
import runpy
from collections.abc import Callable
from pathlib import Path

import pytest

from bert_jax import config, objectives
from bert_jax.config import ALBERT, BERT, ELECTRA, ROBERTA, SPANBERT, Experiment, replace
from bert_jax.training.finetune import finetune
from bert_jax.training.pretrain import pretrain
from bert_jax.utils import pytree
from tests.helpers.paths import ROOT

CONFIGS = sorted((ROOT / "configs").glob("*.py"))

PUBLISHED = {  # parameters of the full pre-training model, tied tables once
    "bert_tiny": 4_433_468,
    "bert_mini": 11_267_900,
    "bert_small": 29_058_876,
    "bert_medium": 41_668_412,
    "bert_base": 110_106_428,
    "bert_large": 336_226_108,
    "albert_base": 11_813_810,
    "albert_large": 17_847_474,
    "albert_xlarge": 59_021_490,
    "albert_xxlarge": 223_158_450,
    "roberta_base": 124_696_665,
    "roberta_large": 355_411_033,
    "electra_small": 14_196_219,
    "electra_base": 119_386_427,
    "electra_large": 354_655_291,
    "spanbert_base": 110_300_480,
    "spanbert_large": 336_998_976,
    "modern_base": 149_655_232,
    "modern_base_8k": 149_655_232,
    "modern_base_decay": 149_655_232,
    "modern_large": 395_881_664,
    "modern_electra_base": 244_094_657,  # with its generator
    "modern_mini": 32_081_344,  # Ettin-32M's sizes
    "modern_tiny": 16_913_600,  # Ettin-17M's
}


OUR_OWN = re.compile("(demo|finetune|protein|simcse|tiny)(_.*)?")  # no published model


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_every_config_builds_says_what_it_is_and_is_published_or_our_own(path: Path) -> None:
    assert objectives.param_shapes(config.from_python_file(path))
    assert (runpy.run_path(str(path))["__doc__"] or "").strip()
    assert (path.stem in PUBLISHED) != bool(OUR_OWN.fullmatch(path.stem))


@pytest.mark.parametrize(("name", "count"), PUBLISHED.items())
def test_published_configs_have_the_published_number_of_parameters(name: str, count: int) -> None:
    experiment = config.from_python_file(ROOT / f"configs/{name}.py")
    assert pytree.count(objectives.param_shapes(experiment)) == count


@pytest.mark.parametrize("experiment", [BERT, ALBERT, ROBERTA, ELECTRA, SPANBERT])
def test_a_config_round_trips_through_json(experiment: Experiment) -> None:
    assert config.from_dict(Experiment, json.loads(json.dumps(config.to_dict(experiment)))) == (
        experiment
    )


@pytest.mark.parametrize(
    "objective", ["Contrastive(dimensions=[64, 32])", "Supervised(labels=['no', 'yes'])"]
)
def test_a_list_in_a_config_file_is_no_difference_to_the_saved_config(
    objective: str, tmp_path: Path
) -> None:
    file = tmp_path / "config.py"
    file.write_text(
        f"from bert_jax import config as c\nconfig = c.replace(c.BERT, objective=c.{objective})"
    )
    given = config.from_python_file(file)
    config.save_config(given, tmp_path / "config.json")
    assert config.differences(config.read_config(tmp_path / "config.json"), given) == {}
    assert hash(given) == hash(config.read_config(tmp_path / "config.json"))


WRONG_TYPES = [
    ("run=dict(steps=1e5)", "run.steps is 100000.0: expected int"),
    ("run=dict(save_every=1e3)", "run.save_every is 1000.0: expected int"),
    ("run=dict(dir=Path('runs/x'))", "run.dir is PosixPath.*: expected str"),
    ("optim=dict(cooldown_shape='cosine')", "optim.cooldown_shape is 'cosine': expected linear or"),
    ("optim=dict(name='adam')", "optim.name is 'adam': expected bert_adam or"),
    ("run=dict(dtype='bf16')", "run.dtype is 'bf16': expected float32 or bfloat16"),
    ("objective=dict(masking=dict(granularity='char'))", "objective.masking.granularity is 'char'"),
]


@pytest.mark.parametrize(("change", "message"), WRONG_TYPES)
def test_a_config_file_with_a_value_of_a_wrong_type_is_refused_by_name(
    change: str, message: str, tmp_path: Path
) -> None:
    (tmp_path / "bad.py").write_text(
        "from pathlib import Path\nfrom bert_jax.config import BERT, replace\n"
        f"config = replace(BERT, {change})"
    )
    with pytest.raises(ValueError, match=f"bad.py: {message}"):
        config.from_python_file(tmp_path / "bad.py")


@pytest.mark.parametrize("train", [pretrain, finetune])
def test_training_refuses_a_config_with_a_value_of_a_wrong_type(
    train: Callable[[Experiment], object], tmp_path: Path
) -> None:
    wrong = replace(BERT, run=dict(dir=str(tmp_path / "run"), steps=1e5))
    with pytest.raises(ValueError, match=r"run.steps is 100000.0: expected int"):
        train(wrong)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_every_config_is_read_back_as_it_is_saved(path: Path) -> None:
    experiment = config.from_python_file(path)
    assert config.checked(experiment) == experiment


def test_a_wrong_field_of_a_saved_config_names_the_file(tmp_path: Path) -> None:
    values = config.to_dict(BERT)
    values["run"]["stepps"] = 3
    (tmp_path / "config.json").write_text(json.dumps(values))
    with pytest.raises(ValueError, match=r"config.json: unknown config field run.stepps"):
        config.read_config(tmp_path / "config.json")


def test_differences_between_configs_are_named() -> None:
    changed = replace(BERT, encoder=dict(layers=6), run=dict(steps=5))
    assert config.differences(BERT, changed) == {
        "encoder.layers": (12, 6),
        "run.steps": (1_000_000, 5),
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(encoder=dict(heads=5)), "not divisible by encoder.heads 5"),
        (dict(encoder=dict(groups=5)), "not divisible by encoder.groups"),
        (dict(encoder=dict(dropout=1.0)), "expected 0 <= x < 1"),
        (dict(data=dict(length=513)), "beyond the model's encoder.max_length 512"),
        (dict(data=dict(batch_size=10), optim=dict(accumulate=4)), "not divisible by"),
        (dict(objective=dict(masking=dict(rate=0.0))), "masking.rate is 0.0"),
        (dict(objective=dict(masking=dict(max_predictions=0))), "masking.max_predictions is 0"),
        (dict(objective=dict(masking=dict(geometric_p=1.0))), "masking.geometric_p is 1.0"),
        (dict(objective=dict(sbo_positions=0)), "objective.sbo_positions is 0"),
        (dict(encoder=dict(token_types=-1)), "encoder.token_types is -1"),
        (dict(optim=dict(eps=float("nan"))), "optim.eps is nan: expected more than 0"),
        (dict(optim=dict(peak_lr=float("inf"))), "optim.peak_lr is inf"),
        (dict(guard=dict(hang_timeout=1e39)), "guard.hang_timeout is 1e.39"),
        (dict(run=dict(steps=0)), "run.steps is 0"),
        (dict(run=dict(seed=-1)), "run.seed is -1"),
        (dict(data=dict(threads=-1)), "data.threads is -1: expected at least 0"),
        (dict(run=dict(dir="~/run")), "run.dir is ~/run: expected a path without ~, such as /"),
        (dict(data=dict(path="~/corpus")), "data.path is ~/corpus: expected a path without ~"),
        (dict(data=dict(mix="a=1,~/b=2")), "data.mix is ~/b=2: expected a path without ~"),
        (dict(encoder=dict(groups=0)), "encoder.groups is 0: expected 1 to"),
        (dict(encoder=dict(mlp_size=0)), "encoder.mlp_size is 0"),
        (dict(optim=dict(decay_steps=0)), "optim.decay_steps is 0"),
        (dict(encoder=dict(hiden_size=3)), "did you mean hidden_size"),
    ],
)
def test_invalid_values_are_refused(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(BERT, **change)


def test_an_impossible_generator_size_is_refused() -> None:
    config = replace(ELECTRA, objective=dict(generator_layers=0.75), encoder=dict(groups=6))
    with pytest.raises(ValueError, match=r"generator_layers 0.75 do not make a generator"):
        objectives.build(config)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("config = 3", "has no `config"),
        ("config = (", "SyntaxError"),
        ("raise SystemExit(0)", "failed to run as a config file: SystemExit"),
        ("from bert_jax.config import BERT, replace\nconfig = replace(BERT, runn={})", "mean run"),
    ],
)
def test_an_error_in_a_config_file_names_the_file(
    content: str, message: str, tmp_path: Path
) -> None:
    (tmp_path / "bad.py").write_text(content)
    with pytest.raises(ValueError, match=message) as e:
        config.from_python_file(tmp_path / "bad.py")
    assert "bad.py" in str(e.value)


@pytest.mark.parametrize(
    ("where", "value", "message"),
    [
        (("encoder", "hiden_size"), 4, "did you mean encoder.hidden_size"),
        (("encoder", "layers"), "12", "encoder.layers is '12': expected int"),
        (("encoder", "layers"), True, "expected int"),
        (("objective", "kind"), "Other", "expected Masked or ReplacedTokens"),
        (("run",), 3, "run is 3: expected an object"),
    ],
)
def test_unknown_fields_and_wrong_types_in_json_are_refused(
    where: tuple[str, ...], value: object, message: str
) -> None:
    values = config.to_dict(BERT)
    inner = values
    for key in where[:-1]:
        inner = inner[key]
    inner[where[-1]] = value
    with pytest.raises(ValueError, match=message):
        config.from_dict(Experiment, values)


def test_pretraining_has_no_length_of_labeled_rows() -> None:
    with pytest.raises(ValueError, match="no row length: fine-tune it"):
        _ = BERT.row_length


@pytest.mark.parametrize(
    "name", ["modern_base", "modern_base_8k", "modern_base_decay", "modern_large"]
)
def test_modernbert_decays_a_hundred_thousandth_of_its_parameters_per_step(name: str) -> None:
    """At the peak rate, by which ours is multiplied and the published decay is not."""
    optim = config.from_python_file(name).optim
    assert optim.peak_lr * optim.weight_decay == pytest.approx(1e-5)
