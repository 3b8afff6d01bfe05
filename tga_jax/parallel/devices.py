"""Published figures of accelerators: dense bfloat16 peak, memory, interconnect. One chip each.

TPUs: cloud.google.com/tpu/docs/{v4,v5e,v5p,v6e}, table "key chip specifications"; the
interconnect is the published figure in Gbps over all links, divided by 8. GPUs: NVIDIA's data
sheets of the SXM boards without sparsity; NVLink is the published total of both directions,
halved. Between slices: the data-center network that the same tables give a pod (v5e, v6e) or a chip
(v5p); v4 is taken as v5p. A device of JAX is one chip (on v4 with both cores as one, "megacore").
"""

from __future__ import annotations

import dataclasses

GIB = 1024**3


@dataclasses.dataclass(frozen=True)
class Device:
    """One accelerator. `kinds`: how its `jax.Device.device_kind` begins."""

    name: str
    kinds: tuple[str, ...]
    peak_flops: float  # FLOP/s, dense bfloat16
    memory_bytes: int
    memory_bandwidth: float  # bytes/s
    link_bandwidth: float  # bytes/s that one chip sends to the others of its slice or board
    network_bandwidth: float | None = None  # bytes/s that one chip sends to other slices


DEVICES = (
    Device("v4", ("TPU v4",), 275e12, 32 * GIB, 1228e9, 300e9, 6.25e9),
    Device("v5e", ("TPU v5 lite", "TPU v5e"), 197e12, 16 * GIB, 819e9, 200e9, 3.125e9),
    Device("v5p", ("TPU v5", "TPU v5p"), 459e12, 95 * GIB, 2765e9, 600e9, 6.25e9),
    Device("v6e", ("TPU v6 lite", "TPU v6e"), 918e12, 32 * GIB, 1600e9, 400e9, 12.5e9),
    Device("a100", ("NVIDIA A100",), 312e12, 80 * GIB, 2039e9, 300e9),
    Device("h100", ("NVIDIA H100",), 989e12, 80 * GIB, 3350e9, 450e9),
    Device("h200", ("NVIDIA H200",), 989e12, 141 * GIB, 4800e9, 450e9),
    # Of PCIe 4.0 x16, as it has no NVLink; its peak is that of products summed in float32.
    Device("rtx4090", ("NVIDIA GeForce RTX 4090",), 165e12, 24 * GIB, 1008e9, 32e9),
)

BY_NAME = {device.name: device for device in DEVICES}


def by_kind(kind: str) -> Device | None:
    """The device that JAX calls `kind`; None where it is not in the table (CPUs)."""
    found = [(len(k), d) for d in DEVICES for k in d.kinds if kind.startswith(k)]
    return max(found, key=lambda pair: pair[0])[1] if found else None
