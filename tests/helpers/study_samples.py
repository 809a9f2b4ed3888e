"""Run records as in study.json, and a text that tasks can be made from."""

import random
from pathlib import Path
from typing import Any

WORDS = "The war of Old Rome began when King Henry, the brave, left. He came back. Did he stay?"


def run_record(variant: str, seed: int, value: float | None, **fields: Any) -> dict[str, Any]:
    """A run with one task `t`, scored with `value` percent."""
    score = {"metric": "accuracy", "value": value and value / 100, "rows": 10**6}
    return {
        "name": f"{variant}-s{seed}-000000",
        "variant": variant,
        "seed": seed,
        "hypotheses": "hi",
        "expected_tasks": ["t"],
        "tasks": {} if value is None else {"t": score},
        "steps": 10,
        "rows": 80,
        "tokens": 800,
        "epochs": 1.0,
        "parameters": 1000,
        "speed": 100.0,
        "seconds": 1.0,
        "flops": {"published": 2e6, "sparse": 1e6},
        "last": {"eval_mask_loss": 5.0},
        "curves": {"eval_mask_loss": [[5, 6.0 + seed], [10, 5.0 + seed]]},
        "held_out": mask_scores(),
        "layers": {},
        "layer_rows": {},
        "layer_types": {},
    } | fields


def mask_scores(loss: float = 3.0, **fields: float) -> dict[str, Any]:
    """Scores at [MASK] beside counts with 4 nat and frequencies with 6; `fields`: others."""
    accuracies = {f"{k}_accuracy": 0.25 for k in ("mask", "unigram", "bigram")}
    losses = {"mask_loss": loss, "unigram_loss": 6.0, "bigram_loss": 4.0}
    return accuracies | losses | {"mask_minus_bigram": loss - 4.0} | fields


def seed_records(variant: str, *values: float, **fields: Any) -> list[dict[str, Any]]:
    return [run_record(variant, seed, value, **fields) for seed, value in enumerate(values)]


def write_text(folder: Path) -> str:
    """A file of 60 documents that contain their numbers."""
    rng = random.Random(0)
    documents = []
    for i in range(60):
        sentences = [" ".join(rng.choice(WORDS.split()) for _ in range(9)) for _ in range(8)]
        text = ". ".join(s[0].upper() + s[1:] for s in sentences)
        documents.append(f"Document {i} was here. {text}")
    file = folder / "text.txt"
    file.write_text("\n\n".join(documents))
    return str(file)
