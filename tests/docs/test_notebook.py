"""The notebook runs from top to bottom without a network, from what the package ships."""

from __future__ import annotations

import ast
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import fake_hub
from tests.helpers.paths import ROOT
from tests.helpers.sentence_folders import write_sentence_folder

NOTEBOOK = ROOT / "notebooks/quickstart.ipynb"
MODEL = "sentence-transformers/all-MiniLM-L6-v2"
FEW = {"STEPS = 300": "STEPS = 2", "--run.epochs 3": "--run.epochs 1", "texts, 400)": "texts, 20)"}
FEW |= {"rows[:1000]": "rows[:40]", "rows[1000:]": "rows[40:]"}

# In every process of the notebook: nothing but loopback can be reached.
LOOPBACK_ONLY = """
import socket
connect = socket.socket.connect
def guarded(self, address):
    if isinstance(address, tuple) and address[0] not in ("127.0.0.1", "::1", "localhost"):
        raise OSError(f"the notebook tried {address}")
    return connect(self, address)
socket.socket.connect = guarded
"""


def cells() -> list[dict[str, Any]]:
    return json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]


def test_the_notebook_is_stored_without_outputs_and_imports_what_comes_with_the_package() -> None:
    code = ["".join(c["source"]) for c in cells() if c["cell_type"] == "code"]
    assert all(not c["outputs"] and c["execution_count"] is None for c in cells() if "outputs" in c)
    lines = "\n".join(code).replace("\\\n", " ").splitlines()
    python = "\n".join(re.sub(r"^(\s*)[!%].*", r"\1pass", line) for line in lines)
    nodes = list(ast.walk(ast.parse(python)))
    names = [a.name for node in nodes if isinstance(node, ast.Import) for a in node.names]
    names += [str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)]
    imported = {name.partition(".")[0] for name in names}
    assert imported - {"bert_jax", "IPython"} <= sys.stdlib_module_names
    assert all(old in "\n".join(code) for old in FEW)


@pytest.mark.library("nbclient", "nbformat", "ipykernel")
@pytest.mark.slow
@pytest.mark.nightly
def test_the_notebook_runs_from_top_to_bottom(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import nbclient
    import nbformat

    site, home = tmp_path / "site", tmp_path / "home"
    site.mkdir()
    home.mkdir()
    (site / "sitecustomize.py").write_text(LOOPBACK_ONLY)
    path = os.pathsep.join(filter(None, (str(site), str(ROOT), os.environ.get("PYTHONPATH"))))
    folder = write_sentence_folder(tmp_path / "model", {"pooling_mode_mean_tokens": True})
    notebook: Any = nbformat.read(NOTEBOOK, as_version=4)
    for cell in notebook.cells:
        for old, new in FEW.items():
            cell.source = cell.source.replace(old, new)
    with fake_hub.serve() as hub:
        hub.add(MODEL, folder)
        values = {"HF_ENDPOINT": hub.url, "HF_HUB_CACHE": str(tmp_path / "cache")}
        values |= {"HF_HUB_DISABLE_XET": "1", "PYTHONPATH": path}
        for name, value in values.items():
            monkeypatch.setenv(name, value)
        client = nbclient.NotebookClient(
            notebook, timeout=600, resources={"metadata": {"path": str(home)}}, allow_errors=True
        )
        client.execute()
    text = json.dumps(notebook.cells)
    assert '"error"' not in text, text
    assert "Traceback" not in text, text
    for expected in ("<table>", "fill()", "predict(): classification", "image/png"):
        assert expected in text
    assert (home / "runs/source/results.json").is_file()
