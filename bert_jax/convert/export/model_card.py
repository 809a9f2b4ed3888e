"""The model card of an export."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from bert_jax import config
from bert_jax.config import Data, Encoder, Supervised
from bert_jax.convert.export.files import ExportableModel
from bert_jax.data import mix_weights
from bert_jax.tasks import results
from bert_jax.utils import hub, metrics_log

AUTO_CLASSES = {  # end of a class's name -> the Auto class that opens it
    "MaskedLM": "AutoModelForMaskedLM",
    "PreTraining": "AutoModelForPreTraining",
    "SequenceClassification": "AutoModelForSequenceClassification",
    "TokenClassification": "AutoModelForTokenClassification",
    "MultipleChoice": "AutoModelForMultipleChoice",
    "QuestionAnswering": "AutoModelForQuestionAnswering",
}


class CardText(NamedTuple):
    """What a model card says about the library that opens the folder."""

    library: str
    tags: tuple[str, ...]
    usage: str  # Python; {auto_class} stands for the class


TRANSFORMERS_CARD = CardText(
    "transformers",
    (),
    "from transformers import {auto_class}, AutoTokenizer\n\n"
    'tokenizer = AutoTokenizer.from_pretrained("FOLDER")\n'
    'model = {auto_class}.from_pretrained("FOLDER")\n',
)
SENTENCE_CARD = CardText(
    "sentence-transformers",
    ("sentence-transformers", "sentence-similarity", "feature-extraction"),
    "from sentence_transformers import SentenceTransformer\n\n"
    'vectors = SentenceTransformer("FOLDER").encode(["a text"])\n',
)


def model_card(
    model: ExportableModel,
    folder: Path,
    config_json: dict[str, Any],
    left_out: list[str],
    card: CardText = TRANSFORMERS_CARD,
    encoder: Encoder | None = None,
) -> str:
    """The model card: config, data, steps and metrics, as far as `folder`, from which the model was
    loaded, has them. `encoder` is that of the exported network; None: that of the config."""
    c, class_name = model.config, config_json["architectures"][0]
    ends = (a for end, a in AUTO_CLASSES.items() if class_name.endswith(end))
    auto_class = next(ends, "AutoModel")
    encoder = encoder or c.encoder
    size = f"{encoder.layers} layers of width {encoder.hidden_size}"
    rows = [
        ("architecture", f"{class_name}, {size}"),
        ("vocabulary", f"{config_json['vocab_size']} pieces"),
    ]
    rows += origins(c)
    if isinstance(c.objective, Supervised):
        rows.append(("task", _task(c.objective)))
        if c.objective.labels:
            rows.append(("labels", _label_list(c.objective.labels)))
        if c.objective.thresholds:
            rows.append(("thresholds", _thresholds(c.objective)))
    if model.step:
        objective = config.to_dict(c.objective)
        masking = objective.pop("masking", {})
        if not getattr(c.objective, "labels", ()):  # no question is without an answer
            objective.pop("no_answer_threshold", None)
        for name in ("task", "labels", "thresholds"):  # already in the table
            objective.pop(name, None)
        rows += [
            ("steps", f"{model.step} of {c.run.steps}"),
            ("rows of a step", "; ".join(_stages(c))),
            ("data", ", ".join(_corpora(c.data))),
            ("objective", _comma_list(objective)),
            *([("masking", _comma_list(masking))] if masking else []),
            ("optimizer", _comma_list(config.to_dict(c.optim))),
        ]
    rows += [(name, f"{value:.4f}") for name, value in final_metrics(folder).items()]
    table = "\n".join(f"| {name} | {value} |" for name, value in rows)
    missing = f"\nNot in this export: {', '.join(left_out)}.\n" if left_out else ""
    tags = ["bert-jax", *card.tags, *filter(None, [config_json["model_type"]])]
    listed_tags = "".join(f"- {tag}\n" for tag in tags)
    return (
        f"---\nlibrary_name: {card.library}\n{_base_model(c)}tags:\n{listed_tags}---\n"
        f"# {_title(c, model.step, folder)}\n\n"
        f"{'Trained' if model.step else 'Imported, and exported again,'} with bert-jax.\n\n"
        f"| | |\n|---|---|\n{table}\n{missing}\n"
        f"```python\n{card.usage.replace('{auto_class}', auto_class)}```\n"
    )


def origins(c: config.Experiment) -> list[tuple[str, str]]:
    """The models that a run started from and learned from: the folder's name, or a name on the Hub
    with its commit."""
    models = {
        "initialized from": (c.run.init, c.run.init_commit),
        "learned from the teacher": (c.distill.teacher, c.distill.teacher_commit),
    }
    return [
        (what, Path(path).name if commit is None else f"{path}, commit {commit}")
        for what, (path, commit) in models.items()
        if path is not None
    ]


def _stages(c: config.Experiment) -> list[str]:
    """The shape of the batches, or of those of each stage and the step from which on."""
    shapes = [f"{s.batch_size}" + (f" of {s.length} tokens" if s.length else "") for s in c.stages]
    if c.data.stages is None:
        return shapes
    return [f"{shape} from step {s.start}" for shape, s in zip(shapes, c.stages, strict=True)]


def _corpora(data: Data) -> list[str]:
    """The names of the corpora, and the weights of a mix."""
    if data.mix is None:
        return ["?" if data.path is None else _corpus_name(data.path)]
    paths, weights = mix_weights.parse_mix(data)
    names = [_corpus_name(path) for path in paths]
    if weights is None:
        return [*names, f"weights by size to the power of {data.mix_exponent}"]
    return [f"{name} {weight:g}" for name, weight in zip(names, weights, strict=True)]


def _corpus_name(path: str) -> str:
    """The folder's name; where it stands for the rows of each stage, that of the folder above."""
    return Path(path).parent.name if Path(path).name == "{length}" else Path(path).name


def _title(c: config.Experiment, step: int, folder: Path) -> str:
    """The run's name; of a model that was not trained, its name on the Hub or its folder's."""
    if step:
        return Path(c.run.dir).name
    from_hub = c.run.init is not None and c.run.init_commit is not None
    return Path(str(c.run.init)).name if from_hub else folder.resolve().name


def _base_model(c: config.Experiment) -> str:
    """The line by which the Hub links a model to the one that it was made from."""
    if c.run.init is None or c.run.init_commit is None:
        return ""
    name = hub.parse_name(str(hub.at_commit(c.run.init, c.run.init_commit)))
    return f"base_model: {name.repo}\n" if name is not None else ""


def final_metrics(folder: Path) -> dict[str, float]:
    """The results of fine-tuning on each split, or else the last evaluation of a run."""
    values: dict[str, Any] = {}
    if (folder / "results.json").is_file():
        finetune_results = results.read_results(folder) or {}
        for split in results.SPLITS:
            values |= {f"{split} {k}": v for k, v in finetune_results.get(split, {}).items()}
    elif (folder / "metrics.jsonl").is_file():
        for row in metrics_log.read_metrics(folder):
            values |= {k: v for k, v in row.items() if k.startswith("eval_")}
    return {k: float(v) for k, v in values.items() if isinstance(v, int | float)}


def _task(objective: Supervised) -> str:
    task_type = objective.task_type
    return task_type if objective.task == task_type else f"{objective.task}, a {task_type}"


def _label_list(labels: tuple[str, ...]) -> str:
    """The first 50 labels in the order of the logits, escaped for a Markdown table."""
    shown = ", ".join(label.replace("|", "\\|").replace("\n", " ") for label in labels[:50])
    return f"{shown}, ... ({len(labels)} in all)" if len(labels) > 50 else shown


def _thresholds(objective: Supervised) -> str:
    """Each label with the probability above which it is predicted."""
    pairs = zip(objective.labels, objective.thresholds, strict=True)
    return _label_list(tuple(f"{label} {threshold:.4f}" for label, threshold in pairs))


def _comma_list(values: dict[str, Any]) -> str:
    return ", ".join(f"{k} {v}" for k, v in values.items() if v is not None) or "-"
