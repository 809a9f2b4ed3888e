"""Commands for vectors of texts: `embed`, `search`, `mine`."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from tyro.conf import Positional, arg

from bert_jax.cli.command import Command, Model, layer_numbers, optional
from bert_jax.utils import hub
from bert_jax.utils.text_lines import read_lines

if TYPE_CHECKING:
    from bert_jax.inference.search_index import Hit

logger = logging.getLogger(__name__)
QUERIES_AT_A_TIME = 256


@dataclass(frozen=True)
class Embed(Command):
    """Write features of every line of a file, from any layer.

    Example: bert-jax embed runs/demo texts.txt --layers 0,2,4 --pool mean --out features.npz
    """

    texts: ClassVar[tuple[str, ...]] = ("prompt",)

    model: Model
    # File with one text per line.
    file: Annotated[Positional[str], arg(metavar="FILE")]
    # New .npz file for the features.
    out: Annotated[str | None, optional("FILE.npz")] = None
    # Instead of --out: new folder for a search index of the lines.
    index: Annotated[str | None, optional("DIR")] = None
    # With --index: add a graph of FAISS (extra `faiss`), with which the search of a large index
    # compares a query with few lines and may miss some.
    graph: bool = False
    # Layers such as 0,6,12; negative numbers count from the end, and `words` is the word embedding
    # table.
    layers: Annotated[str, arg(metavar="LAYERS")] = "-1"
    # Vectors to write: one per text (`sentence`, as a model of sentence-transformers defines it,
    # `mean` over tokens, or `cls`, the first token), one per word (`words`), or one per token
    # (`none`). The default is `sentence` where the model has it, else `mean`.
    pool: Literal["default", "sentence", "mean", "cls", "words", "none"] = "default"
    # Cut texts that are longer than the model takes.
    truncate: bool = False
    # Read texts that are longer than the model takes in windows, and average their vectors.
    long: Annotated[Literal["mean"] | None, optional("mean")] = None
    # Scale vectors to length 1.
    normalize: bool = False
    # Text before every text, or the name of one of the model's prompts. For an index the default
    # is the model's prompt for documents.
    prompt: Annotated[str | None, optional("PROMPT")] = None
    # Number of features to keep, from the first on (Matryoshka).
    dimensions: Annotated[int | None, optional("N")] = None

    def run(self, extra: list[str]) -> int:
        from bert_jax import load
        from bert_jax.inference.embed_file import EmbedOptions, embed_file
        from bert_jax.inference.search_index import write_index

        options = EmbedOptions(
            layers="words" if self.layers == "words" else layer_numbers(self.layers),
            pool=None if self.pool == "none" else self.pool,
            truncate=self.truncate,
            normalize=self.normalize,
            prompt=self.prompt,
            dimensions=self.dimensions,
            long=self.long,
        )
        if (self.out is None) == (self.index is None):
            raise ValueError("expected either --out FILE.npz or --index DIR")
        if self.graph and self.index is None:
            raise ValueError("--graph is for --index: expected both, or neither")
        model, file = load(self.model), Path(self.file)
        if self.index is not None:
            # A search loads the same model: of a name on the Hub the commit, else from any folder.
            name = hub.with_commit(self.model, model.config.run.init_commit)
            if hub.parse_name(self.model) is None:
                name = str(Path(self.model).expanduser().absolute())
            count = write_index(model, name, file, Path(self.index), options, self.graph)
            print(f"index of {count} lines in {self.index}")
        elif self.out is not None:
            count = embed_file(model, file, Path(self.out), options)
            print(f"features of {count} texts in {self.out}")
        return 0


@dataclass(frozen=True)
class Search(Command):
    """Find the lines of an index that are most similar to a query.

    Example: bert-jax search lines.index "How many rivers are there?" --top 3
    """

    texts: ClassVar[tuple[str, ...]] = ("text", "prompt")

    # Folder that embed --index wrote.
    folder: Annotated[Positional[str], arg(metavar="INDEX")]
    # Query; or give --file.
    text: Annotated[Positional[str | None], arg(metavar="QUERY", help_behavior_hint="")] = None
    # File with one query per line.
    file: Annotated[str | None, optional("FILE")] = None
    # Number of lines to find per query.
    top: Annotated[int, arg(metavar="K")] = 10
    # Where the model of the index is, if it has been moved.
    model: Annotated[str | None, optional("MODEL")] = None
    # Text before every query, or the name of one of the model's prompts. The default is the model's
    # prompt for queries.
    prompt: Annotated[str | None, optional("PROMPT")] = None
    # Compare with every line, even if the index has a graph.
    exact: bool = False
    # Cut queries that are longer than the model.
    truncate: bool = False
    # Print one JSON object per query.
    json: bool = False

    def run(self, extra: list[str]) -> int:
        if (self.text is None) == (self.file is None):
            raise ValueError("expected either a QUERY or --file FILE")
        from bert_jax import load
        from bert_jax.inference.search_index import SearchIndex
        from bert_jax.inference.sentence_vectors import prompt_text
        from bert_jax.inference.text_lengths import refuse_long_texts

        queries = [str(self.text)] if self.file is None else read_lines(self.file)
        index = SearchIndex.open(self.folder, self.exact)
        index.check_text()
        if self.model is None and not _is_there(index.info.model):
            raise ValueError(
                f"the model of the index is not in {index.info.model}: say where with --model"
            )
        model = load(self.model or index.info.model)
        index.check_model(model)
        prompt = "query" if self.prompt is None else self.prompt
        if self.prompt is None and index.info.prompt and not prompt_text(model.sentence, prompt):
            logger.warning(
                "the lines of the index begin with the prompt %r, and queries with none: give "
                "theirs with --prompt",
                index.info.prompt,
            )
        refuse_long_texts(model, queries, "query", self.truncate, index.info.pool, prompt)
        for begin in range(0, len(queries), QUERIES_AT_A_TIME):
            chunk = queries[begin : begin + QUERIES_AT_A_TIME]
            found = index.search(model, chunk, self.top, self.truncate, prompt, begin)
            for query, hits in zip(chunk, found, strict=True):
                _print_hits(query, hits, self.json, titled=self.file is not None)
        return 0


@dataclass(frozen=True)
class Mine(Command):
    """Add hard negatives to pairs: documents close to a query that are not its positives. Or write
    the closest documents of each query as the candidates of a reranker.

    Example: bert-jax mine runs/pairs pairs/train.jsonl --out mined/train.jsonl
    """

    model: Model
    # File of rows with text and positive, as for finetune --task pairs; with --rerank also a folder
    # with a retrieval set.
    input: Annotated[Positional[str], arg(metavar="DATA")]
    # New JSONL file for the rows with their negatives and all their other fields; with --rerank for
    # the candidates, without other fields.
    out: Annotated[str, arg(metavar="FILE")]
    # Number of negatives to add to each row; the default is 4.
    negatives: Annotated[int | None, optional("N")] = None
    # Cosine by which a negative must be less similar to the query than the positive is. Closer
    # documents may be positives that nobody marked. The default is 0.05.
    margin: Annotated[float | None, optional("X")] = None
    # Number of closest documents that are considered, or with --rerank written, for each query.
    candidates: Annotated[int, arg(metavar="N")] = 50
    # Write rows for finetune --task rerank: each query with its closest documents with labels.
    rerank: bool = False
    # With --rerank, for training: put relevant documents that are not among the closest ones last.
    add_positives: bool = False
    # Cut texts that are longer than the model takes.
    truncate: bool = False

    def run(self, extra: list[str]) -> int:
        from bert_jax import load
        from bert_jax.inference.mine import MARGIN, NEGATIVES, mine_negatives

        if self.rerank:
            for flag, value in (("--negatives", self.negatives), ("--margin", self.margin)):
                if value is not None:
                    raise ValueError(
                        f"{flag} is {value}, but --rerank writes all --candidates: leave it out"
                    )
            return self._write_candidates()
        if self.add_positives:
            raise ValueError("--add-positives is for --rerank: expected both, or neither")
        negatives = NEGATIVES if self.negatives is None else self.negatives
        counts = mine_negatives(
            load(self.model),
            Path(self.input),
            Path(self.out),
            negatives=negatives,
            margin=MARGIN if self.margin is None else self.margin,
            candidates=self.candidates,
            truncate=self.truncate,
        )
        print(
            f"{counts.mined} negatives for {counts.rows} rows in {self.out}; {counts.incomplete} "
            f"rows have fewer than {negatives}; {counts.too_close} documents were within the "
            "margin"
        )
        return 0

    def _write_candidates(self) -> int:
        from bert_jax import load
        from bert_jax.inference.rerank_candidates import write_candidates

        counts = write_candidates(
            load(self.model),
            Path(self.input),
            Path(self.out),
            candidates=self.candidates,
            add_positives=self.add_positives,
            truncate=self.truncate,
        )
        print(
            f"{self.candidates} candidates for each of {counts.queries} queries in {self.out}; "
            f"{counts.found} of {counts.relevant} relevant documents are among them, "
            f"{counts.added} were added"
        )
        return 0


def _is_there(model: str) -> bool:
    """Whether a model that an index names is a name on the Hub, or a folder that exists."""
    return hub.parse_name(model) is not None or Path(model).exists()


def _print_hits(query: str, hits: Sequence[Hit], as_json: bool, titled: bool) -> None:
    if as_json:
        print(json.dumps({"query": query, "hits": [asdict(hit) for hit in hits]}))
        return
    if titled:
        print(f"query: {query}")
    for hit in hits:
        print(f"{hit.rank:>4}  {hit.score:.4f}  line {hit.line}: {hit.text}")
