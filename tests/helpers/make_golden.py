"""Write tests/fixtures/golden/*.npz: small models of transformers and their outputs.

    python -m tests.helpers.make_golden

Needs torch and transformers; the tests that read the files need neither. Each file holds
`config` (JSON), `weight/NAME`, the batch as `batch/FIELD`, `hidden` (of every layer that has
the hidden size), the logits at the masked places or of the other heads, `loss`, and
`slope/NAME`, the norm of every tensor's gradient.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import torch

from tests.helpers import hf_reference
from tests.helpers.paths import FIXTURES

OUT = FIXTURES / "golden"
SIZES: dict[str, Any] = dict(
    vocab_size=37,
    hidden_size=15,
    num_hidden_layers=2,
    num_attention_heads=3,
    intermediate_size=21,
    max_position_embeddings=19,
)
MORE: dict[str, dict[str, Any]] = {
    "bert": {},
    "albert": dict(embedding_size=7, num_hidden_groups=1, num_hidden_layers=3),
    "roberta": dict(max_position_embeddings=21),
    "electra": dict(embedding_size=7),
    "electra_generator": dict(embedding_size=7),
}
LOGITS = {"prediction_logits": "mlm", "seq_relationship_logits": "pair", "sop_logits": "pair"}


def record(kind: str) -> dict[str, np.ndarray]:
    model = hf_reference.make_model(
        kind, hf_reference.odd_config(kind, 0, **(SIZES | MORE[kind])), seed=1
    )
    batch = hf_reference.make_batch(model.config, 1, rows=3, slots=4)
    with torch.no_grad():
        out = hf_reference.forward(model, batch, output_hidden_states=True)
    loss = hf_reference.pretraining_loss(model, batch, batch["tokens"])
    loss.backward()
    width = model.config.hidden_size
    hidden = [h.numpy() for h in out.hidden_states if h.shape[-1] == width]
    names = LOGITS | {"logits": "rtd" if kind == "electra" else "mlm"}
    logits = {name: out[hf].numpy() for hf, name in names.items() if hf in out}
    if "mlm" in logits:
        logits["mlm"] = np.take_along_axis(logits["mlm"], batch["masked"][..., None], 1)
    slopes = {k: np.float32(np.linalg.norm(g)) for k, g in hf_reference.gradients(model).items()}
    return {
        "config": np.array(json.dumps(hf_reference.config_json(model))),
        **{f"weight/{k}": v for k, v in hf_reference.tensors(model).items()},
        **{f"batch/{k}": v for k, v in batch.items()},
        **{f"logits/{k}": v for k, v in logits.items()},
        **{f"slope/{k}": v for k, v in slopes.items()},
        "hidden": np.stack(hidden),
        "loss": loss.detach().numpy(),
    }


if __name__ == "__main__":
    OUT.mkdir(parents=True, exist_ok=True)
    for kind in MORE:
        np.savez_compressed(OUT / f"{kind}.npz", **record(kind))
        print(OUT / f"{kind}.npz", (OUT / f"{kind}.npz").stat().st_size, "bytes")
