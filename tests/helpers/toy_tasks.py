"""Toy tasks that are easy to learn, and tiny models to learn them: colors decide the label, numbers
do not."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from bert_jax import config
from bert_jax.checkpoint.manager import Checkpoints
from bert_jax.config import ALBERT, BERT, ELECTRA, FINETUNE, ROBERTA, Experiment, replace
from bert_jax.data.tokenization import tokenizer as tokenizers
from bert_jax.training import finetune_config
from tests.helpers import tiny_configs

TASK_TYPES = ("classification", "regression", "tagging", "choice", "qa")
NUMBERS = ("zero", "one", "two", "three", "four", "five")
WORDS = (*NUMBERS, "red", "blue", "which", "?", "_")
SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
FAMILY_CONFIGS = {"bert": BERT, "albert": ALBERT, "roberta": ROBERTA, "electra": ELECTRA}


def write_model_dir(folder: Path, family: str = "bert", **encoder: Any) -> Path:
    """Write a tiny model as `bert-jax import` does; return its folder."""
    (folder / "tokenizer").mkdir(parents=True)
    pieces = "".join(f"{piece}\n" for piece in (*SPECIALS, *WORDS))
    (folder / "tokenizer" / "vocab.txt").write_text(pieces)
    tokenizer = tokenizers.load_tokenizer(folder / "tokenizer")
    sizes = dict(layers=2, hidden_size=32, heads=2, embedding_size=32, max_length=48)
    ids = dict(vocab_size=tokenizer.vocab_size, pad_id=tokenizer.pad_id, initializer_range=0.2)
    position = dict(position_offset=1) if family == "roberta" else {}
    dropout = dict(dropout=0.1, attention_dropout=0.0)
    experiment = replace(FAMILY_CONFIGS[family], encoder=sizes | ids | position | dropout | encoder)
    params = tiny_configs.initial_params(experiment)
    config.save_config(experiment, folder / "config.json")
    with Checkpoints(folder / "checkpoints") as checkpoints:
        checkpoints.save(0, {"params": params}, experiment)
    return folder


def random_row(task_type: str, rng: np.random.Generator) -> dict[str, Any]:
    words = [NUMBERS[i] for i in rng.integers(0, 6, int(rng.integers(3, 9)))]
    at, red = int(rng.integers(len(words))), bool(rng.integers(2))
    words[at] = "red" if red else "blue"
    text = " ".join(words)
    if task_type == "classification":
        return {"text": text, "label": words[at]}
    if task_type == "multilabel":
        words[(at + 1) % len(words)] = "blue" if rng.integers(2) else "one"
        return {"text": " ".join(words), "label": sorted({"red", "blue"} & set(words))}
    if task_type == "regression":
        return {"text": text, "label": 1.5 if red else -0.5}
    if task_type == "tagging":
        return {"tokens": words, "tags": ["O" if w in NUMBERS else "B-X" for w in words]}
    if task_type == "choice":
        options = ["one", "two", "three"]
        options[at % 3] = "red"
        return {"text": "four", "question": "which _", "options": options, "label": at % 3}
    context = text.replace("blue", "red")
    answers = [{"text": "red", "answer_start": context.index("red")}]
    return {"question": "which ?", "context": context, "answers": answers}


def random_rows(task_type: str, n: int, seed: int) -> list[dict[str, Any]]:
    rng = np.random.default_rng(seed)
    return [random_row(task_type, rng) for _ in range(n)]


def write_task_dir(
    folder: Path, task_type: str, train: int = 48, dev: int = 21, test: int = 19
) -> Path:
    folder.mkdir(parents=True)
    for i, (split, n) in enumerate({"train": train, "dev": dev, "test": test}.items()):
        examples = random_rows(task_type, n, i)
        if task_type == "qa":
            paragraphs = [
                {"context": r.pop("context"), "qas": [{"id": f"{split}{j}", **r}]}
                for j, r in enumerate(examples)
            ]
            whole = {"version": "1.1", "data": [{"title": "", "paragraphs": paragraphs}]}
            (folder / f"{split}.json").write_text(json.dumps(whole))
        else:
            write_jsonl(folder / f"{split}.jsonl", examples)
    return folder


def write_jsonl(file: Path, examples: list[dict[str, Any]]) -> Path:
    file.write_text("".join(json.dumps(r) + "\n" for r in examples))
    return file


def finetune_config_for(
    model: Path, task_type: str, data: Path, folder: Path, /, **changes: Any
) -> Experiment:
    """The config of the finetune command with configs/finetune.py: six steps, evaluated twice."""
    base = replace(
        FINETUNE,
        data=dict(batch_size=16),
        optim=dict(peak_lr=3e-3, decay_steps=60),  # one schedule, so one compiled step
        run=dict(epochs=None, evals_per_epoch=None, steps=6, eval_every=3, log_every=1),
    )
    required = dict(
        objective=dict(task=task_type),
        data=dict(path=str(data)),
        run=dict(init=str(model), dir=str(folder)),
    )
    return finetune_config.for_model(base, lambda e: replace(replace(e, **required), **changes))
