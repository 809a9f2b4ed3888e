"""Published figures per chip, for utilization and rooflines.

Sources, read in November 2026: docs.cloud.google.com/tpu/docs/{v4,v5e,v5p,v6e} (key
specifications); for v4's links, Jouppi et al. 2023, "TPU v4: An Optically Reconfigurable
Supercomputer" (six of 50 GB/s each way). Google prints bidirectional bandwidth of the links
together (v5e 400, v5p 1,200, v6e 800 GB/s); here it is one way, the most that a chip can send. The
data center network: 6.4 Tbps per v5e pod of 256 chips, 50 Gbps per v5p chip; for v4 and v6e no
figure was found, and none is used. H100 SXM: NVIDIA's data sheet (dense bfloat16; NVLink 900
GB/s both ways) and DGX H100's (one 400 Gbps adapter per GPU). H100's figures and v4's links were
not read again in the sources: treat them as unverified.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

GB, GIB, TERA = 10**9, 2**30, 10**12


@dataclass(frozen=True)
class Chip:
    """The figures of one chip that bound a step."""

    name: str
    flops: float  # bfloat16 matrix products per second
    memory: int  # bytes
    bandwidth: float  # of memory, bytes per second
    link_bandwidth: float  # to other chips of the slice or node, one way, bytes per second
    network_bandwidth: float | None  # to other slices or nodes, one way, bytes per second
    max_chips: int  # in a slice or node
    examples: tuple[str, ...] = ()  # names of slices


CHIPS: dict[str, Chip] = {
    "v4": Chip(
        *("v4", 275 * TERA, 32 * GIB, 1200 * GB, 300 * GB, None, 4096),
        examples=("v4:2x2x1", "v4:2x2x4", "v4:4x4x4", "v4:8x8x8", "v4:16x16x16"),
    ),
    "v5e": Chip(
        *("v5e", 197 * TERA, 16 * GIB, 819 * GB, 200 * GB, 3.125 * GB, 256),
        examples=("v5e:1x1", "v5e:2x2", "v5e:2x4", "v5e:4x4", "v5e:8x8", "v5e:16x16"),
    ),
    "v5p": Chip(
        *("v5p", 459 * TERA, 95 * GIB, 2765 * GB, 600 * GB, 6.25 * GB, 6144),
        examples=("v5p:2x2x1", "v5p:2x2x4", "v5p:4x4x4", "v5p:8x8x8", "v5p:16x16x16"),
    ),
    "v6e": Chip(
        *("v6e", 918 * TERA, 32 * GIB, 1638 * GB, 400 * GB, None, 256),
        examples=("v6e:1x1", "v6e:2x2", "v6e:2x4", "v6e:4x4", "v6e:8x8", "v6e:16x16"),
    ),
}
# max_chips: of one node. A DGX or HGX node has one network adapter per GPU: 400 Gbps for H100 and
# H200, 200 Gbps for A100.
GPUS: dict[str, Chip] = {
    "h100": Chip(
        *("H100", 989.4 * TERA, 80 * GB, 3350 * GB, 450 * GB, 50 * GB, 8),
        examples=("h100:1", "h100:8", "h100:2x8"),
    ),
    "h200": Chip(
        *("H200", 989.4 * TERA, 141 * GB, 4800 * GB, 450 * GB, 50 * GB, 8),
        examples=("h200:1", "h200:8", "h200:2x8"),
    ),
    "a100": Chip(
        *("A100", 312 * TERA, 80 * GB, 2039 * GB, 300 * GB, 25 * GB, 8),
        examples=("a100:1", "a100:8", "a100:2x8"),
    ),
}
H100, H200, A100 = GPUS["h100"], GPUS["h200"], GPUS["a100"]

# The card in jax.Device.device_kind (`peak_flops`) -> (bfloat16, float32 as JAX multiplies it by
# default), FLOP/s without sparsity. GPU: NVIDIA's data sheets, TF32 for float32; TPU: Google's,
# where float32 is rounded to bfloat16 for products, per device of JAX: of v2 and v3 half a chip.
PEAKS: dict[str, tuple[float, float]] = {
    "NVIDIA B200": (2250 * TERA, 1125 * TERA),
    "NVIDIA GH200": (989.4 * TERA, 494.7 * TERA),
    "NVIDIA H200 NVL": (835.5 * TERA, 417.5 * TERA),
    "NVIDIA H200": (H200.flops, H200.flops / 2),
    "NVIDIA H100 NVL": (835.5 * TERA, 417.5 * TERA),
    "NVIDIA H100 PCIe": (756.5 * TERA, 378 * TERA),
    "NVIDIA H100": (H100.flops, H100.flops / 2),
    "NVIDIA A100": (A100.flops, A100.flops / 2),
    "NVIDIA L40S": (362.05 * TERA, 183 * TERA),
    "NVIDIA L40": (181.05 * TERA, 90.5 * TERA),
    "NVIDIA L4": (121 * TERA, 60.5 * TERA),
    "NVIDIA A10G": (70 * TERA, 35 * TERA),
    "TPU v2": (22.5 * TERA, 22.5 * TERA),
    "TPU v3": (61.5 * TERA, 61.5 * TERA),
    "TPU v4": (CHIPS["v4"].flops, CHIPS["v4"].flops),
    "TPU v5 lite": (CHIPS["v5e"].flops, CHIPS["v5e"].flops),
    "TPU v5e": (CHIPS["v5e"].flops, CHIPS["v5e"].flops),
    "TPU v5": (CHIPS["v5p"].flops, CHIPS["v5p"].flops),
    "TPU v5p": (CHIPS["v5p"].flops, CHIPS["v5p"].flops),
    "TPU v6 lite": (CHIPS["v6e"].flops, CHIPS["v6e"].flops),
    "TPU v6e": (CHIPS["v6e"].flops, CHIPS["v6e"].flops),
}

# What a device kind may have after the name in PEAKS: memory and form factor, as in A100-SXM4-80GB,
# H100 80GB HBM3 and GH200 144G HBM3e. Any other word may name another card, or a part of one (MIG).
SAME_CARD = re.compile(r"([ -](\d+GB?|HBM3e?|SXM\d?|PCIE?))*", re.IGNORECASE)


def peak_flops(device_kind: str) -> tuple[float, float] | None:
    """The figures of `PEAKS` for a `jax.Device.device_kind`; None for a card that is not there."""
    for name in sorted(PEAKS, key=len, reverse=True):
        if device_kind.startswith(name) and SAME_CARD.fullmatch(device_kind, len(name)):
            return PEAKS[name]
    return None
