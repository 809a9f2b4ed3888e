"""The memory of a compiled step."""

from __future__ import annotations

from typing import Any


def step_memory(compiled: Any) -> dict[str, int]:
    """Bytes on one device while a compiled step runs, by use. Donated buffers count once."""
    m = compiled.memory_analysis()
    parts = {
        "arguments": m.argument_size_in_bytes,
        "outputs": m.output_size_in_bytes - m.alias_size_in_bytes,
        "temporaries": m.temp_size_in_bytes,
        "code": m.generated_code_size_in_bytes,
    }
    return {**parts, "peak": sum(parts.values())}
