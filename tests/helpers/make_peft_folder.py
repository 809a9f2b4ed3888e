"""Write tests/fixtures/peft: an adapter that peft trained beside a tiny model, and its outputs.

python -m tests.helpers.make_peft_folder     # needs peft, PyTorch and transformers
"""

import json
import shutil

import numpy as np
import torch
import transformers
from peft import LoraConfig, get_peft_model

from tests.helpers.paths import FIXTURES

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "red", "blue", "one", "two"]
TOKENS = [[2, 5, 7, 3], [2, 8, 6, 3], [2, 7, 3, 0]]


def main() -> None:
    """Two steps of SGD, so that no factor is zero."""
    torch.manual_seed(0)
    folder = FIXTURES / "peft"
    shutil.rmtree(folder, ignore_errors=True)
    sizes = dict(hidden_size=8, intermediate_size=12, num_hidden_layers=2, num_attention_heads=2)
    lengths = dict(vocab_size=len(WORDS), max_position_embeddings=8)
    config = transformers.BertConfig(num_labels=3, initializer_range=0.5, **sizes, **lengths)
    base = transformers.BertForSequenceClassification(config)
    base.bert.save_pretrained(folder / "base")
    (folder / "base" / "vocab.txt").write_text("".join(f"{word}\n" for word in WORDS))
    lora = LoraConfig(
        task_type="SEQ_CLS", r=2, lora_alpha=6, lora_dropout=0.1, target_modules="all-linear"
    )
    model = get_peft_model(base, lora)
    model.eval()
    tokens = torch.tensor(TOKENS)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.3)
    for _ in range(2):
        labels = torch.tensor([0, 1, 2])
        out = model(input_ids=tokens, attention_mask=(tokens > 0).long(), labels=labels)
        out.loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    logits = model(input_ids=tokens, attention_mask=(tokens > 0).long()).logits
    model.save_pretrained(folder / "adapter")
    (folder / "adapter" / "README.md").unlink()
    file = folder / "adapter" / "adapter_config.json"
    settings = json.loads(file.read_text()) | {"base_model_name_or_path": "../base"}
    file.write_text(json.dumps(settings, indent=2) + "\n")
    for weights in folder.rglob("*.safetensors"):
        weights.chmod(0o644)
    np.savez(folder / "outputs.npz", tokens=TOKENS, logits=logits.detach().numpy())


if __name__ == "__main__":
    main()
