"""LoRA against peft, on the same weights: outputs, gradients, and folders in both directions."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax import convert, load, objectives
from bert_jax.config import Lora, Supervised, replace
from bert_jax.convert.export import peft as peft_export
from bert_jax.convert.hf_layout import unshare_layers
from bert_jax.inference.adapter import Adapter
from bert_jax.model import lora
from bert_jax.utils.pytree import flatten_with_names
from tests.helpers.hf_fixtures import LoadedModel, random_params
from tests.helpers.hf_fixtures import read_hf_folder as read

peft: Any = pytest.importorskip("peft")
torch: Any = pytest.importorskip("torch")
transformers: Any = pytest.importorskip("transformers")
pytestmark = pytest.mark.peer

TOKENS = np.array([[2, 5, 9, 7, 3], [2, 8, 6, 3, 0]])
LABELS = np.array([0, 2])
SIZES: dict[str, Any] = dict(
    vocab_size=12,
    hidden_size=8,
    intermediate_size=12,
    num_hidden_layers=2,
    num_attention_heads=2,
    max_position_embeddings=16,
    pad_token_id=0,
    initializer_range=0.5,
)
MODELS: dict[str, Any] = {
    "bert": dict(),
    "albert": dict(embedding_size=6),
    "modernbert": dict(hidden_activation="gelu", local_attention=8),
}


def write_base(folder: Path, kind: str) -> Path:
    """A bare random model of transformers, with a tokenizer."""
    torch.manual_seed(0)
    ids = dict(cls_token_id=2, sep_token_id=3, bos_token_id=2, eos_token_id=3)
    extra = MODELS[kind] | (ids if kind == "modernbert" else {})
    config = transformers.AutoConfig.for_model(kind, **SIZES, **extra)
    transformers.AutoModel.from_config(config).save_pretrained(folder)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefg"]
    (folder / "vocab.txt").write_text("".join(f"{w}\n" for w in words))
    return folder


def adapted(base: Path, kind: str) -> tuple[Any, Any, LoadedModel]:
    """The experiment with adapters, its parameters with random ones, and the merged model."""
    loaded = read(base)
    family: Any = kind
    head: Any = {"modernbert": "prediction"}.get(kind, "pooler")
    task = Supervised("classification", family, head, labels=("x", "y", "z"))
    settings = Lora(rank=2, alpha=6.0)
    experiment = replace(loaded.config, objective=task, lora=settings)
    fresh = random_params(replace(experiment, lora=Lora()))
    params = {
        **fresh,
        "embeddings": loaded.params["embeddings"],
        "encoder": loaded.params["encoder"],
    }
    new = lora.init_adapters(settings, params, jax.random.key(1))
    keys = iter(jax.random.split(jax.random.key(2), 100))
    new = jax.tree.map(lambda x: 0.3 * jax.random.normal(next(keys), x.shape), new)
    trained = lora.join(new, lora.split_base(params)[0])
    whole = lora.join(trained, params)
    recorded = lora.base_hash(lora.split_base(params)[1], 12)
    adapter = Adapter(replace(settings, base=recorded), trained, str(base), None)
    plain = replace(experiment, lora=Lora())
    model = Exported(plain, lora.merge(whole, settings), loaded.tokenizer, adapter)
    return experiment, whole, model


class Exported:
    """What an export reads of a loaded run."""

    step, sentence = 0, None

    def __init__(self, config: Any, params: Any, tokenizer: Any, adapter: Any) -> None:
        self.config, self.params, self.tokenizer, self.adapter = config, params, tokenizer, adapter


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["bert", "albert", "modernbert"])
def test_outputs_and_gradients_are_those_of_peft(kind: str, tmp_path: Path) -> None:
    """A folder that we wrote, opened there; also where layers share adapters, and where one fused
    kernel there has the adapters of several here."""
    base = write_base(tmp_path / "base", kind)
    experiment, params, model = adapted(base, kind)
    out = tmp_path / "peft"
    out.mkdir()
    assert peft_export.export_peft(model, base, out, None) == []
    config = transformers.AutoConfig.from_pretrained(out, attn_implementation="eager")
    opened = transformers.AutoModelForSequenceClassification.from_pretrained(base, config=config)
    opened = peft.PeftModel.from_pretrained(opened, out, is_trainable=True).eval()
    tokens = torch.tensor(TOKENS)
    inputs = dict(input_ids=tokens, attention_mask=(tokens > 0).long())
    theirs = opened(**inputs, labels=torch.tensor(LABELS))
    theirs.loss.backward()

    objective: Any = objectives.build(experiment)
    size = (TOKENS > 0).sum(1)
    arrays = dict(tokens=TOKENS, size=size, first=size, label=LABELS)
    batch = {name: jnp.asarray(x, jnp.int32) for name, x in arrays.items()}

    @jax.jit
    def loss(p: Any) -> Any:
        return objective.terms(p, batch, None)["task_loss"].value

    ours = jax.jit(objective.outputs)(params, batch)
    np.testing.assert_allclose(ours, theirs.logits.detach().numpy(), atol=1e-5)
    gradients = flatten_with_names(jax.grad(loss)(params))
    _compare_gradients(kind, experiment, gradients, opened)
    again = load(out)
    same = jax.jit(objectives.build(again.config).outputs)(again.params, batch)  # type: ignore[attr-defined]
    np.testing.assert_allclose(same, ours, atol=1e-5)


def _compare_gradients(kind: str, experiment: Any, ours: dict[str, Any], opened: Any) -> None:
    """Each factor's gradient: of the blocks, where several of our kernels are one of theirs."""
    theirs = {
        n.removeprefix("base_model.model.").replace(".default", ""): p.grad.numpy()
        for n, p in opened.named_parameters()
        if p.grad is not None and "lora_" in n
    }
    family = convert.hf_family(experiment.encoder, experiment.objective)
    leaves = {n: np.asarray(x) for n, x in ours.items() if lora.is_adapter(n)}
    leaves = unshare_layers(family, experiment.encoder, leaves)
    rules = peft_export._adapted_rules(family, leaves)
    rank = 2 * max(len(rule.natives) for rule in rules)
    expected = {}
    for rule in rules:
        expected |= peft_export._low_rank(rule, leaves, rank, experiment.encoder)
    assert expected.keys() == theirs.keys()
    largest = max(np.abs(x).max() for x in expected.values())
    for name, gradient in expected.items():
        mine = gradient != 0  # zeros of the blocks have gradients there, and are not trained here
        difference = np.abs(np.where(mine, theirs[name] - gradient, 0)).max()
        assert difference <= 1e-5 * max(1.0, largest), name
        if kind != "modernbert":
            assert np.abs(theirs[name] - gradient).max() <= 1e-5 * max(1.0, largest), name
