"""The model card of an export."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bert_jax import config
from bert_jax.config import Supervised
from bert_jax.convert.export.files import ExportableModel
from bert_jax.tasks import results
from bert_jax.utils import metrics_log

AUTO_CLASSES = {  # end of a class's name -> what opens it
    "MaskedLM": "AutoModelForMaskedLM",
    "PreTraining": "AutoModelForPreTraining",
    "SequenceClassification": "AutoModelForSequenceClassification",
    "TokenClassification": "AutoModelForTokenClassification",
    "MultipleChoice": "AutoModelForMultipleChoice",
    "QuestionAnswering": "AutoModelForQuestionAnswering",
}


def model_card(
    model: ExportableModel, folder: Path, written: dict[str, Any], left_out: list[str]
) -> str:
    """The model card: recipe, data, steps and metrics, as far as the folder knows them."""
    c, kind = model.config, written["architectures"][0]
    reader = next((r for end, r in AUTO_CLASSES.items() if kind.endswith(end)), "AutoModel")
    size = f"{written['num_hidden_layers']} layers of width {written['hidden_size']}"
    rows = [("architecture", f"{kind}, {size}"), ("vocabulary", f"{written['vocab_size']} pieces")]
    if c.run.init is not None:
        rows.append(("begun from", Path(c.run.init).name))
    if isinstance(c.objective, Supervised):
        rows.append(("task", _task(c.objective)))
        if c.objective.labels:
            rows.append(("labels", _shortened(c.objective.labels)))
    if model.step:
        objective = config.to_dict(c.objective)
        masking = objective.pop("masking", {})
        for name in ("task", "labels"):  # said above
            objective.pop(name, None)
        rows += [
            ("steps", f"{model.step} of {c.run.steps}, {c.data.batch_size} rows each"),
            ("data", f"{Path(c.data.path or c.data.mix or '?').name}, rows of {c.data.length}"),
            ("objective", _listed(objective)),
            *([("masking", _listed(masking))] if masking else []),
            ("optimiser", _listed(config.to_dict(c.optim))),
        ]
    rows += [(name, f"{value:.4f}") for name, value in final_metrics(folder).items()]
    table = "\n".join(f"| {name} | {value} |" for name, value in rows)
    missing = f"\nNot in this export: {', '.join(left_out)}.\n" if left_out else ""
    return (
        f"---\nlibrary_name: transformers\ntags:\n- bert-jax\n- {written['model_type']}\n---\n"
        f"# {Path(c.run.dir).name}\n\n"
        f"{'Trained' if model.step else 'Imported, and exported again,'} with bert-jax.\n\n"
        f"| | |\n|---|---|\n{table}\n{missing}\n"
        f"```python\nfrom transformers import {reader}, AutoTokenizer\n\n"
        f'tokenizer = AutoTokenizer.from_pretrained("FOLDER")\n'
        f'model = {reader}.from_pretrained("FOLDER")\n```\n'
    )


def final_metrics(folder: Path) -> dict[str, float]:
    """What a fine-tuning came to on each split, or else the last evaluation of a run."""
    found: dict[str, Any] = {}
    if (folder / "results.json").is_file():
        values = results.read_results(folder) or {}
        for split in results.SPLITS:
            found |= {f"{split} {k}": v for k, v in values.get(split, {}).items()}
    elif (folder / "metrics.jsonl").is_file():
        for row in metrics_log.read_metrics(folder):
            found |= {k: v for k, v in row.items() if k.startswith("eval_")}
    return {k: float(v) for k, v in found.items() if isinstance(v, int | float)}


def _task(objective: Supervised) -> str:
    kind = objective.task_type
    return kind if objective.task == kind else f"{objective.task}, a {kind}"


def _shortened(labels: tuple[str, ...]) -> str:
    """The first labels, in the order of the logits, as they may stand in a table."""
    shown = ", ".join(label.replace("|", "\\|").replace("\n", " ") for label in labels[:50])
    return f"{shown}, ... ({len(labels)} in all)" if len(labels) > 50 else shown


def _listed(values: dict[str, Any]) -> str:
    return ", ".join(f"{k} {v}" for k, v in values.items() if v is not None) or "-"
