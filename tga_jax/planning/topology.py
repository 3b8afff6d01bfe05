"""Devices that are not here: TPU slices described by libtpu, to compile for them.

A topology is a text: "v5e:4x4", "v5p:2x2x2" (chips along each side of the slice's torus), or
"v5e:4x4 x2", two such slices joined by the data-center network. "h100:8" and the other GPUs of
`devices.py` have no description to compile for; what is said of them is analytic.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
from collections.abc import Iterator
from typing import Any

from jax.sharding import AbstractMesh, Mesh

from tga_jax.environment import variable
from tga_jax.errors import UserError
from tga_jax.parallel.devices import BY_NAME, Device
from tga_jax.parallel.mesh import AUTO, AXES, make_mesh, sliced_sizes

TPUS = ("v4", "v5e", "v5p", "v6e")
_TEXT = re.compile(r"(\w+):(\d+(?:x\d+)*)(?: x(\d+))?")
# One device a chip, as jobs on v4 see it.
_OPTIONS: dict[str, dict[str, str]] = {"v4": {"chip_config_name": "megacore"}}


@dataclasses.dataclass(frozen=True)
class Topology:
    """`count` devices: `slices` slices of shape `shape`."""

    device: Device
    shape: tuple[int, ...]
    slices: int

    @property
    def is_tpu(self) -> bool:
        """Whether it can be compiled for."""
        return self.device.name in TPUS

    @property
    def per_slice(self) -> int:
        """Devices of a slice (or board)."""
        size = 1
        for side in self.shape:
            size *= side
        return size

    @property
    def count(self) -> int:
        """How many devices the topology has."""
        return self.per_slice * self.slices


def parse_topology(text: str) -> Topology:
    """The topology that a text names.

    Raises:
        UserError: it does not name one.
    """
    match = _TEXT.fullmatch(text.strip())
    if match is None or match[1] not in BY_NAME:
        names = ", ".join(BY_NAME)
        raise UserError(
            f"config.plan.topology={text!r}: write it like 'v5e:4x4', 'v5p:2x2x2', "
            f"'v5e:4x4 x2' (two slices) or 'h100:8'; devices known: {names}"
        )
    shape = tuple(int(side) for side in match[2].split("x"))
    topology = Topology(BY_NAME[match[1]], shape, int(match[3] or 1))
    if topology.count < 1:
        raise UserError(f"config.plan.topology={text!r}: it has no devices")
    if not topology.is_tpu and (len(shape) > 1 or topology.slices > 1):
        raise UserError(f"config.plan.topology={text!r}: for GPUs name one board, like 'h100:8'")
    return topology


def topology_mesh(topology: Topology, sizes: tuple[int, int, int]) -> Mesh:
    """A mesh (data, fsdp, tensor) over a TPU topology's devices, as `make_mesh` makes it there.

    Raises:
        UserError: libtpu is missing or has no such topology, or the sizes do not fit.
    """
    data, fsdp, tensor = slice_sizes(topology, sizes)
    return make_mesh(data=data, fsdp=fsdp, tensor=tensor, devices=tpu_devices(topology))


def abstract_mesh(topology: Topology, sizes: tuple[int, int, int]) -> AbstractMesh:
    """The same without devices, for shapes alone."""
    return AbstractMesh(slice_sizes(topology, sizes), AXES, axis_types=AUTO)


def slice_sizes(topology: Topology, sizes: tuple[int, int, int]) -> tuple[int, int, int]:
    """The mesh's sizes, all known."""
    return sliced_sizes(sizes, topology.count, topology.slices)


def tpu_devices(topology: Topology) -> list[Any]:
    """libtpu's description of a slice's devices; nothing runs on them.

    Raises:
        UserError: libtpu is missing, or it has no such topology.
    """
    # Otherwise libtpu asks a metadata server that only TPU machines have, and two processes
    # cannot compile at once.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    from jax.experimental import topologies

    shape = "x".join(map(str, topology.shape))
    name = f"{topology.device.name}:{shape}"
    options: dict[str, Any] = dict(_OPTIONS.get(topology.device.name, {}))
    if topology.slices > 1:
        options["num_slices"] = topology.slices
    try:
        with flags_of_libtpu():
            described = topologies.get_topology_desc(platform="tpu", topology_name=name, **options)
    except Exception as error:  # libtpu raises errors of several kinds
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"config.plan.topology: libtpu has no {name!r} ({reason}); "
            "is it installed (pip install libtpu==0.0.52), and is there such a slice?"
        ) from error
    return list(described.devices)


@contextlib.contextmanager
def flags_of_libtpu() -> Iterator[None]:
    """XLA_FLAGS inside, without what is for CPUs and GPUs.

    libtpu reads them as it is loaded and at every compilation, and it ends the process at a flag
    that it does not know.
    """
    others = ("--xla_cpu_", "--xla_gpu_")
    given = os.environ.get("XLA_FLAGS", "").split()
    with variable("XLA_FLAGS", " ".join(flag for flag in given if not flag.startswith(others))):
        yield
