"""The files beside model.onnx: config.json, tokenizer and model card, as serving programs read
them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bert_jax.convert.export.files import (
    ExportableModel,
    copy_tokenizer,
    write_json,
    write_pipeline,
    write_text,
)
from bert_jax.convert.export.model_card import CardText, model_card
from bert_jax.convert.export.onnx_file.graph import OPSET
from bert_jax.convert.export.onnx_file.source import Source
from bert_jax.utils.types import Json

USAGE = """import numpy as np
import onnxruntime
from tokenizers import Tokenizer

session = onnxruntime.InferenceSession("FOLDER/model.onnx")
encoded = Tokenizer.from_file("FOLDER/tokenizer.json").encode("a text")
values = {"input_ids": encoded.ids, "attention_mask": encoded.attention_mask}
values["token_type_ids"] = encoded.type_ids
inputs = {i.name: np.array([values[i.name]]) for i in session.get_inputs()}
outputs = session.run(None, inputs)
"""
CHOICE_USAGE = """import numpy as np
import onnxruntime
from tokenizers import Tokenizer

session = onnxruntime.InferenceSession("FOLDER/model.onnx")
tokenizer = Tokenizer.from_file("FOLDER/tokenizer.json")
tokenizer.enable_padding()
options = tokenizer.encode_batch([("a question", "an option"), ("a question", "another one")])
values = {"input_ids": [o.ids for o in options]}
values["attention_mask"] = [o.attention_mask for o in options]
values["token_type_ids"] = [o.type_ids for o in options]
inputs = {i.name: np.array([values[i.name]]) for i in session.get_inputs()}
outputs = session.run(None, inputs)  # a score for each option
"""
PADDING = (
    "Rows are padded on the right; `attention_mask` is 1 where there is a token. Outputs at "
    "padding mean nothing.\n"
)
CARD = CardText("onnxruntime", ("onnx",), USAGE)


def write_folder(
    model: ExportableModel,
    source: Source,
    out: Path,
    folder: Path,
    hf_config: Json | None,
    left_out: list[str],
    facts: Sequence[tuple[str, str]],
) -> None:
    """Write to `out`; `folder` has the model's tokenizer. `hf_config` is None if no Hugging Face
    class computes the same. `facts` are rows of a table in the model card."""
    copy_tokenizer(folder, out, model.config.encoder)
    write_pipeline(model.tokenizer, out)
    if hf_config is None:
        encoder = model.config.encoder
        values: Json = {"architectures": ["bert_jax"], "model_type": None}
        values["vocab_size"] = encoder.vocab_size
    else:
        values = hf_config
        write_json(out / "config.json", values)
    rows = [("opset", str(OPSET)), *facts]
    table = "".join(f"| {name} | {value} |\n" for name, value in rows)
    card = CARD._replace(usage=CHOICE_USAGE) if source.is_choice else CARD
    text = model_card(model, folder, values, left_out, card, source.encoder)
    text += f"\n## The file\n\n| | |\n|---|---|\n{table}\n{PADDING}"
    write_text(out / "README.md", text)
