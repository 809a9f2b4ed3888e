"""Files that are shipped with the package: the configs, and the text and prompts of the demo.

An installed wheel has them in bert_jax/shipped/ (setup.py), a checkout beside bert_jax/.
"""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).parents[1]


def shipped_file(name: str) -> Path:
    """The path of a shipped file, such as configs/demo.py or data/sample.txt."""
    inside = PACKAGE / "shipped"
    return (inside if inside.is_dir() else PACKAGE.parent) / name


def shipped_configs() -> dict[str, Path]:
    """Config name, such as bert_base -> its file."""
    return {path.stem: path for path in sorted(shipped_file("configs").glob("*.py"))}
