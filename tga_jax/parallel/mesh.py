"""The device mesh: data x fsdp x tensor, over one TPU slice or several."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh

from tga_jax.errors import UserError

AXES = ("data", "fsdp", "tensor")
AUTO = (AxisType.Auto,) * len(AXES)


def make_mesh(*, data: int, fsdp: int, tensor: int, devices: Sequence[Any] | None = None) -> Mesh:
    """A mesh over `devices` (all, where none are given); one of the sizes may be -1, the rest.

    Several TPU slices are joined by a slower network. "data" runs over them before it runs inside
    them, so that only gradient sums go that way; with data=1 it is their number.

    Raises:
        UserError: the sizes do not multiply to the number of devices, or "data" is not a multiple
            of the number of slices.
    """
    devices = list(jax.devices() if devices is None else devices)
    slices = count_slices(devices)
    sizes = sliced_sizes((data, fsdp, tensor), len(devices), slices)
    if slices == 1:
        return jax.make_mesh(sizes, AXES, axis_types=AUTO, devices=devices)
    return Mesh(slice_grid(devices, sizes, slices), AXES, axis_types=AUTO)


def mesh_of(sizes: Any) -> Mesh:
    """The mesh over all devices that `config.mesh` describes."""
    return make_mesh(data=sizes.data, fsdp=sizes.fsdp, tensor=sizes.tensor)


def host_mesh(sizes: Any) -> Mesh:
    """The mesh that `config.mesh` describes on the devices of this process alone.

    Of several processes each then holds the whole model, and none waits for the others: only
    config.mesh.tensor counts, and the rest of the devices is for fsdp.
    """
    if jax.process_count() == 1:
        return mesh_of(sizes)
    rest = 1 if sizes.tensor == -1 else -1
    return make_mesh(data=1, fsdp=rest, tensor=sizes.tensor, devices=jax.local_devices())


def slice_grid(devices: Sequence[Any], sizes: tuple[int, int, int], slices: int) -> np.ndarray:
    """The devices in the mesh's order: slice after slice along "data"."""
    inner = (sizes[0] // slices, *sizes[1:])
    return mesh_utils.create_hybrid_device_mesh(inner, (slices, 1, 1), devices)


def count_slices(devices: Sequence[Any]) -> int:
    """TPU slices; 1 for other devices, whose `slice_index` is something else or not there."""
    tpus = [device for device in devices if device.platform == "tpu"]
    return max(len({getattr(device, "slice_index", 0) for device in tpus}), 1)


def sliced_sizes(sizes: tuple[int, int, int], devices: int, slices: int) -> tuple[int, int, int]:
    """`resolve_sizes`, where "data" has to join slices.

    Raises:
        UserError: see `make_mesh`.
    """
    if slices > 1 and sizes[0] == 1:
        sizes = (slices, *sizes[1:])
    sizes = resolve_sizes(sizes, devices)
    if sizes[0] % slices:
        raise UserError(
            f"mesh {sizes} of data, fsdp and tensor: data must be a multiple of the {slices} "
            "slices, set config.mesh (or config.plan.mesh)"
        )
    return sizes


def resolve_sizes(sizes: tuple[int, int, int], devices: int) -> tuple[int, int, int]:
    """Replace a -1 by what is left of the devices, and check the product."""
    shown = ", ".join(f"config.mesh.{a}={s}" for a, s in zip(AXES, sizes, strict=True))
    if sizes.count(-1) > 1 or any(s < 1 and s != -1 for s in sizes):
        raise UserError(
            f"{shown}: sizes must be positive, and at most one may be -1, which means all "
            "remaining devices"
        )
    known = math.prod(s for s in sizes if s != -1)
    rest = devices // known if -1 in sizes else 1
    if -1 not in sizes and known != devices:
        raise UserError(
            f"{shown} multiply to {known}, and there are {devices} devices; set one to -1, which "
            "means all remaining devices"
        )
    if known * rest != devices:
        raise UserError(f"{shown} does not divide {devices} devices")
    data, fsdp, tensor = (rest if s == -1 else s for s in sizes)
    return data, fsdp, tensor
