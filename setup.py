"""Adds configs/ and the demo's text to a wheel, as bert_jax/shipped/; pyproject.toml has the rest.

`bert_jax.utils.shipped` reads these files there, and in a checkout where they are.
"""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

SHIPPED = ("configs/*.py", "data/sample.txt", "data/demo_prompts.jsonl")


class BuildWithConfigs(build_py):
    """`build_py` that also copies the shipped files; an editable install reads the checkout's."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            for source in sorted(path for pattern in SHIPPED for path in Path().glob(pattern)):
                target = Path(self.build_lib, "bert_jax", "shipped", source)
                target.parent.mkdir(parents=True, exist_ok=True)
                self.copy_file(str(source), str(target))


setup(cmdclass={"build_py": BuildWithConfigs})
