"""What the groups of flags share."""

from __future__ import annotations

import argparse
from collections.abc import Callable

MODEL = "a run folder, an imported folder, or a Hugging Face folder"

Command = Callable[[str, str, str], argparse.ArgumentParser]  # name, what it says, an example
