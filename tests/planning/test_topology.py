"""Topology texts, the meshes over them, and the table of devices."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest

from tga_jax.errors import UserError
from tga_jax.parallel.devices import DEVICES, by_kind
from tga_jax.parallel.mesh import count_slices, slice_grid
from tga_jax.planning.topology import (
    abstract_mesh,
    parse_topology,
    slice_sizes,
    topology_mesh,
    tpu_devices,
)


@pytest.mark.parametrize(
    ("text", "name", "count", "slices"),
    [
        ("v5e:4x4", "v5e", 16, 1),
        ("v5p:2x2x2", "v5p", 8, 1),
        ("v6e:4x4 x2", "v6e", 32, 2),
        ("h100:8", "h100", 8, 1),
    ],
)
def test_texts(text: str, name: str, count: int, slices: int) -> None:
    topology = parse_topology(text)
    assert (topology.device.name, topology.count, topology.slices) == (name, count, slices)


@pytest.mark.parametrize("text", ["", "v5e", "v5e:", "v9:4x4", "v5e:4x", "v5e:0x4", "v5e:4x4 2"])
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(UserError, match="config.plan.topology"):
        parse_topology(text)


def test_slices_are_joined_along_data() -> None:
    two = parse_topology("v5e:4x4 x2")
    assert slice_sizes(two, (1, -1, 1)) == (2, 16, 1)
    assert slice_sizes(two, (4, -1, 2)) == (4, 4, 2)
    with pytest.raises(UserError, match="multiple of the 2 slices"):
        slice_sizes(parse_topology("v5e:4x4 x2"), (-1, 32, 1))
    with pytest.raises(UserError, match="does not divide"):
        slice_sizes(parse_topology("v5e:4x4"), (3, -1, 1))
    assert dict(abstract_mesh(two, (1, -1, 1)).shape) == {"data": 2, "fsdp": 16, "tensor": 1}


@dataclasses.dataclass(frozen=True)
class FakeDevice:
    """What laying out a mesh reads of a device."""

    id: int
    slice_index: int
    platform: str
    device_kind: str = "made up"
    process_index: int = 0


def test_a_real_mesh_joins_slices_along_data_alone() -> None:
    assert count_slices([FakeDevice(i, i % 2, "tpu") for i in range(8)]) == 2
    mixed = [FakeDevice(i, i % 2, "made up") for i in range(8)]  # a TPU's has coordinates too
    inner, joined = slice_grid(mixed, (4, 2, 1), 2), slice_grid(mixed, (2, 4, 1), 2)
    for grid in (inner, joined):
        slices = np.vectorize(lambda device: device.slice_index)(grid)
        first = slices[:, :1, :1]
        assert np.all(slices == first) and sorted(first.ravel()) == list(first.ravel())
    # Elsewhere the number means something else, such as the host.
    assert count_slices([FakeDevice(i, i, "gpu") for i in range(8)]) == 1
    assert count_slices(jax.devices()) == 1


def test_a_kind_has_one_device() -> None:
    for device in DEVICES:
        assert all(by_kind(kind) is device for kind in device.kinds)
    assert by_kind("TPU v5 lite chip").name == "v5e"  # type: ignore[union-attr]
    assert by_kind("cpu") is None


@pytest.mark.tpu_compile
@pytest.mark.parametrize("text", ["v4:2x2x2", "v5e:4x4", "v5p:2x2x2", "v6e:4x4", "v5e:2x2 x2"])
def test_libtpu_describes_the_devices(text: str) -> None:
    topology = parse_topology(text)
    devices = tpu_devices(topology)
    assert len(devices) == topology.count
    assert all(by_kind(device.device_kind) is topology.device for device in devices)


@pytest.mark.tpu_compile
def test_the_mesh_of_two_slices_keeps_each_together() -> None:
    mesh = topology_mesh(parse_topology("v5e:2x2 x2"), (1, -1, 1))
    assert dict(mesh.shape) == {"data": 2, "fsdp": 4, "tensor": 1}
    for row in mesh.devices:
        assert len({device.slice_index for device in row.ravel()}) == 1
