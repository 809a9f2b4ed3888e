"""`export --format onnx`: one network with one head, for onnxruntime and what is built on it.

    model.onnx              batch size and length are dynamic
    model_quantized.onnx    with --int8: weights of 8 bits, one scale per channel
    config.json  tokenizer files  README.md        as in a Hugging Face folder

The graph is written with the package onnx, from the parameters, and compared with the network in
onnxruntime before anything is kept. Two libraries that trace a network were tried first
(2026-11, on the five families and ModernBERT). jax2onnx 0.17.1 wants an Orbax older than ours, and
converts neither the loop over layers nor a length that is dynamic. torch.onnx 2.13 converts
transformers' classes well, but only those: no joint span heads, no options that transformers lacks,
such as the demo's norm; its file of a ModernBERT differed from one export to the next.
"""

from __future__ import annotations

import importlib.util
import logging
from pathlib import Path
from typing import Any, NamedTuple

import jax

from bert_jax import config, convert
from bert_jax.convert.export.files import ExportableModel, with_special_ids
from bert_jax.convert.export.onnx_file import heads as head_nodes
from bert_jax.convert.export.onnx_file.check import check_parity, open_session
from bert_jax.convert.export.onnx_file.folder import write_folder
from bert_jax.convert.export.onnx_file.graph import Graph
from bert_jax.convert.export.onnx_file.int8 import (
    lines_to_compare,
    quantize_words,
    write_int8,
)
from bert_jax.convert.export.onnx_file.network import Inputs, Layers, encoder_nodes
from bert_jax.convert.export.onnx_file.reference import reference_outputs
from bert_jax.convert.export.onnx_file.source import Source, select_source
from bert_jax.convert.export.sentence_transformers import write_sentence_head
from bert_jax.convert.hf_long_texts import long_texts_to_hf
from bert_jax.utils import extras
from bert_jax.utils.pytree import flatten_with_names
from bert_jax.utils.types import Json

logger = logging.getLogger(__name__)

MAX_PROTOBUF_BYTES = 2_000_000_000  # larger weights go to a file of their own


class OnnxOptions(NamedTuple):
    """The flags of `export` that are for ONNX alone."""

    head: str | None = None  # of `Head`; None: the one that `default_head` names
    int8: Path | None = None  # text whose lines compare the quantized file with the other


DEFAULT_OPTIONS = OnnxOptions()


def export_onnx(
    model: ExportableModel,
    folder: Path,
    out: Path,
    part: str | None,
    options: OnnxOptions = DEFAULT_OPTIONS,
) -> list[str]:
    """Write a network with one head to `out`. Returns the parameters that the file does not have,
    and what else it does not do.

    ValueError: a package that is missing, a head that the model does not have, a graph whose
    outputs differ from the model's.
    """
    check_onnx(options.int8)
    source = select_source(model, part, options.head)
    write_model(source, out / "model.onnx")
    session = open_session(out / "model.onnx")
    parity = check_parity(session, source.encoder, reference_outputs(source), source.is_choice)
    shapes = ", ".join(parity.shapes)
    facts = [
        ("head", source.head),
        ("inputs", ", ".join(i.name for i in session.get_inputs())),
        ("outputs", ", ".join(f"{o.name} {o.shape}" for o in session.get_outputs())),
        ("largest relative difference to the model", f"{parity.difference:.1e} at {shapes} tokens"),
    ]
    if source.is_joint:
        facts.append(("token_type_ids", "0 in the question, 1 from the first token of the context"))
    for name, value in facts:
        logger.info("%s: %s", name, value)
    if options.int8 is not None:
        quantized = source._replace(params=quantize_words(source.params, source.head))
        write_model(quantized, out / "unquantized.onnx")
        facts += write_int8(out, session, model.tokenizer, source.encoder, options.int8)
    left_out = [
        name
        for name in sorted(flatten_with_names(source.params))
        if name.split("/")[0] not in source.parts
    ]
    if source.head == "task":
        left_out += long_texts_to_hf(model.config)[1]
    if source.head == "sentence":
        encoder = source.encoder
        write_sentence_head(source.sentence, out, encoder.hidden_size, encoder.max_length)
        if not source.sentence.include_prompt:
            left_out.append("include_prompt false: the graph pools the tokens of a prompt, too")
    write_folder(model, source, out, folder, _hf_config(model, source), left_out, facts)
    return left_out


def check_onnx(int8: str | Path | None) -> None:
    """What can be known before the model is read. ValueError: a package that is missing, a text for
    `int8` that cannot be read."""
    if int8 is not None:
        lines_to_compare(Path(int8))
    for package in ("onnx", "onnxruntime"):
        if importlib.util.find_spec(package) is None:
            raise extras.missing("export --format onnx", package, "onnx")


def _hf_config(model: ExportableModel, source: Source) -> Json | None:
    """The config.json of the class with this head; None, which the log says, if there is none."""
    experiment, params = model.config, model.params
    heads = source.parts - {"embeddings", "encoder"}
    try:
        if source.head != "task":
            family: Any = convert.hf_family(source.encoder, experiment.objective).name
            imported: Any = config.Imported(family, **dict.fromkeys(heads, True))  # type: ignore[arg-type]
            experiment = config.replace(experiment, encoder=source.encoder, objective=imported)
            params = {k: source.params[k] for k in source.parts}
        hf = convert.to_hf(experiment, params)
        lost = [name for name in hf.left_out if name.split("/")[0] in heads]
        if lost:
            class_name = hf.config["architectures"][0]
            raise ValueError(f"Hugging Face's {class_name} does not have {', '.join(lost)}")
    except ValueError as e:
        logger.warning("no config.json, which some serving programs read: %s", e)
        return None
    # the graph's type, also where the weights were imported in half precision
    return with_special_ids(hf.config, model.tokenizer) | {"dtype": "float32"}


def write_model(source: Source, file: Path) -> None:
    """Write the graph; equal sources give equal files."""
    import onnx  # type: ignore[import-not-found]

    model = build_graph(source).model({"head": source.head, "framework": "bert-jax"})
    if sum(p.nbytes for p in jax.tree.leaves(source.params)) > MAX_PROTOBUF_BYTES:
        onnx.save_model(
            model,
            file,
            save_as_external_data=True,
            all_tensors_to_one_file=True,
            location=f"{file.name}_data",
        )
    else:
        file.write_bytes(model.SerializeToString(deterministic=True))
        onnx.checker.check_model(str(file))


def build_graph(source: Source) -> Graph:
    """The nodes of a network with its head."""
    graph, c = Graph(), source.encoder
    axes = ("batch_size", "num_choices") if source.is_choice else ("batch_size",)
    names = ["input_ids", "attention_mask", *(["token_type_ids"] if source.has_types else [])]
    tokens, mask, *types = (graph.input(name, (*axes, "sequence_length")) for name in names)
    if source.is_choice:  # [b n l] to [b*n l]
        length = graph.op("Shape", "input_ids", start=2, end=3)
        shape = graph.op("Concat", [-1], length, axis=0)
        tokens, mask, *types = (graph.op("Reshape", x, shape) for x in (tokens, mask, *types))
    x = Inputs(graph, tokens, mask, types[0] if types else None)
    layers, params = Layers(graph, c), source.params
    h = encoder_nodes(graph, c, params, x)
    if source.head == "encoder":
        head_nodes.encoder_outputs(layers, params, h)
    elif source.head == "sentence":
        head_nodes.sentence_outputs(layers, source.sentence, x, h)
    elif source.head == "task":
        assert source.used_task is not None
        head_nodes.task_outputs(layers, source.used_task, params, x, h)
    else:
        head_nodes.pretraining_outputs(layers, source.head, params, x, h)
    return graph
