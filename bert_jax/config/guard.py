"""The section `guard`: what a run does when something goes wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bert_jax.config.ranges import RangeChecks, check_ranges


@dataclass(frozen=True)
class Guard:
    """Reaction to non-finite numbers, loss spikes and hangs."""

    # Number of consecutive skipped updates after which the run stops. Updates with non-finite
    # numbers are skipped.
    max_skipped_updates: int = 10
    # Reaction to a loss spike: none, a warning, or a warning and a skipped update.
    spike: Literal["off", "warn", "skip"] = "warn"
    # Number of recent losses whose median and deviation define a spike.
    spike_window: int = 128
    # A loss is a spike if it is this many deviations above the median of the recent losses.
    spike_factor: float = 10.0
    # A phase hangs if it takes this many times its median duration, and longer than `hang_timeout`.
    hang_factor: float = 20.0
    # Number of seconds that a phase may take before it can count as hanging; then stack traces are
    # written.
    hang_timeout: float = 300.0
    # Number of seconds in one phase after which the process exits; None means never.
    timeout: float | None = None

    def __post_init__(self) -> None:
        positive = ("spike_factor", "hang_factor", "hang_timeout")
        counts = ("max_skipped_updates", "spike_window")
        checks: RangeChecks = {
            **{name: (getattr(self, name) >= 1, "at least 1") for name in counts},
            **{name: (getattr(self, name) > 0, "above 0") for name in positive},
            "timeout": (self.timeout is None or self.timeout > 0, "above 0"),
        }
        check_ranges("guard", self, checks)
