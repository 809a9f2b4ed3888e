"""Records as study.json holds them, and a text that tasks can be made of."""

import random
from pathlib import Path
from typing import Any

WORDS = "The war of Old Rome began when King Henry, the brave, left. He came back. Did he stay?"


def record(arm: str, seed: int, value: float | None, **more: Any) -> dict[str, Any]:
    scored = {"metric": "accuracy", "value": value and value / 100, "rows": 10**6}
    tasks = {} if value is None else {"t": scored}
    return {
        "name": f"{arm}-s{seed}-000000",
        "arm": arm,
        "seed": seed,
        "claims": "hi",
        "wanted": ["t"],
        "tasks": tasks,
        "steps": 10,
        "rows": 80,
        "tokens": 800,
        "epochs": 1.0,
        "parameters": 1000,
        "speed": 100.0,
        "seconds": 1.0,
        "flops": {"published": 2e6, "sparse": 1e6},
        "last": {"eval_mlm_loss": 5.0},
        "curve": {"eval_mlm_loss": [[5, 6.0 + seed], [10, 5.0 + seed]], "loss": [[1, 7.0]]},
        "gain": 1.0,
        "layers": {},
    } | more


def seeds(arm: str, *values: float) -> list[dict[str, Any]]:
    return [record(arm, seed, value) for seed, value in enumerate(values)]


def write_text(folder: Path) -> str:
    """60 documents that tell their numbers."""
    rng = random.Random(0)
    told = []
    for i in range(60):
        drawn = [" ".join(rng.choice(WORDS.split()) for _ in range(9)) for _ in range(8)]
        told.append(f"Document {i} was here. " + ". ".join(s[0].upper() + s[1:] for s in drawn))
    file = folder / "text.txt"
    file.write_text("\n\n".join(told))
    return str(file)
