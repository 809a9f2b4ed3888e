"""The section `lora`: low-rank adapters (Hu et al. 2021, arXiv 2106.09685)."""

from __future__ import annotations

from dataclasses import dataclass

from bert_jax.config.ranges import MAX_SIZE, RangeChecks, check_ranges

ATTENTION = ("query", "key", "value", "out")
MLP = ("up", "gate", "down")
TARGET_GROUPS = {"attention": ATTENTION, "mlp": MLP, "all": ATTENTION + MLP}


@dataclass(frozen=True)
class Lora:
    """Low-rank adapters: instead of the encoder, the run trains two small matrices beside each
    chosen kernel, and the heads. The encoder keeps its parameters bit for bit."""

    # Rank of the adapters; None trains all parameters. With a rank, the encoder of `run.init` is
    # frozen, and checkpoints hold adapters and heads alone.
    rank: int | None = None
    # Scale of the adapters: alpha / rank multiplies their output.
    alpha: float = 16.0
    # Dropout rate of the input of the adapters.
    dropout: float = 0.0
    # Kernels with adapters, separated by commas: some of query, key, value, out, up, gate (of gated
    # MLPs) and down, or attention, mlp, or all.
    targets: str = "all"
    # Hash of the base's parameters. A run sets it when it starts; do not set it.
    base: str | None = None

    def __post_init__(self) -> None:
        rank = self.rank
        checks: RangeChecks = {
            "rank": (rank is None or 1 <= rank <= MAX_SIZE, "at least 1, or None for no adapters"),
            "alpha": (0 < self.alpha < float("inf"), "a finite number above 0"),
            "dropout": (0 <= self.dropout < 1, "0 <= x < 1"),
        }
        check_ranges("lora", self, checks)
        self._parse_targets()

    @property
    def enabled(self) -> bool:
        """Whether the run trains adapters."""
        return self.rank is not None

    @property
    def scale(self) -> float:
        """The factor of the adapters' output."""
        assert self.rank is not None
        return self.alpha / self.rank

    @property
    def kernels(self) -> tuple[str, ...]:
        """The names of the layers' kernels that `targets` stands for. Groups leave out what the
        layers may lack (`gate`), single names do not: see `model.lora.adapter_shapes`."""
        return self._parse_targets()

    @property
    def named(self) -> tuple[str, ...]:
        """The single names in `targets`, which the layers must have."""
        return tuple(t for t in self._words() if t not in TARGET_GROUPS)

    def _words(self) -> list[str]:
        return self.targets.replace(" ", "").split(",")

    def _parse_targets(self) -> tuple[str, ...]:
        kernels: list[str] = []
        for word in self._words():
            if word not in TARGET_GROUPS and word not in TARGET_GROUPS["all"]:
                raise ValueError(
                    f"lora.targets has {word!r}: expected some of "
                    f"{', '.join(TARGET_GROUPS['all'])}, or {', '.join(TARGET_GROUPS)}"
                )
            kernels += TARGET_GROUPS.get(word, (word,))
        return tuple(dict.fromkeys(kernels))
