"""Type aliases that several packages share."""

from __future__ import annotations

from typing import Any

Batch = dict[str, Any]  # name -> array, of NumPy on the host or of JAX on devices
Params = dict[str, Any]  # nested dicts whose leaves are arrays
Json = dict[str, Any]  # a JSON object
