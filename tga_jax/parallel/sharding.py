"""Logical axes -> mesh axes, in one place."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
from flax.traverse_util import flatten_dict
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

from tga_jax.errors import UserError

BATCH_AXES = ("data", "fsdp")
EMBED_AXIS = "fsdp"

# Parameters: a matrix is sharded along its "embed" side over fsdp and along the other over tensor.
# Of the two factors of an adapter one has no such side, and a rank is too small to be sharded: its
# other side is sharded over both, tensor first, so that what fsdp gathers lies as the matrix's side
# does. Activations: samples over data and fsdp, inner widths over tensor; between blocks, where no
# width is sharded over tensor, the sequence is. A KV cache: samples likewise, kv heads over tensor.
RULES: tuple[tuple[str, str | tuple[str, ...] | None], ...] = (
    ("batch", BATCH_AXES),
    ("length", None),
    ("residual_length", "tensor"),
    ("activation", None),
    ("layers", None),
    ("embed", EMBED_AXIS),
    ("vision_embed", EMBED_AXIS),
    ("heads", "tensor"),
    ("kv_heads", "tensor"),
    ("ffn", "tensor"),
    ("vocab", "tensor"),
    ("norm", None),
    ("lora_rank", None),
    ("lora_side", ("tensor", EMBED_AXIS)),
)

LARGE = 1 << 20  # elements; a parameter of that size must not lie whole on every device


def mesh_ways(mesh: Mesh | AbstractMesh, axes: tuple[str, ...]) -> int:
    """The number of shards that these axes make together; 1 without a mesh."""
    return 1 if mesh.empty else math.prod(mesh.shape[axis] for axis in axes)


def batch_shards(mesh: Mesh) -> int:
    """The number of shards of a batch of samples."""
    return mesh_ways(mesh, BATCH_AXES)


def batch_sharding(mesh: Mesh, *, leading: int = 0) -> NamedSharding:
    """Samples sharded over data and fsdp; `leading` axes before the sample axis are not."""
    return NamedSharding(mesh, PartitionSpec(*[None] * leading, BATCH_AXES))


def local_rows(mesh: Mesh, batch: int) -> list[int]:
    """Which rows of a batch (of a micro-batch in training) this process's devices hold."""
    sharding = batch_sharding(mesh)
    slices = sharding.addressable_devices_indices_map((batch,)).values()
    return sorted({row for s in slices if s for row in range(*s[0].indices(batch))})


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding of an array that every device holds whole."""
    return NamedSharding(mesh, PartitionSpec())


def param_shardings(boxed: Any, mesh: Mesh | AbstractMesh) -> dict[str, NamedSharding]:
    """Sharding of every parameter by path.

    Args:
        boxed: `jax.eval_shape(model.init, key)`: shapes boxed with their logical axes.
        mesh: the mesh.

    Raises:
        ValueError: a parameter without logical axes, an axis without a rule, or two axes of one
            parameter over the same mesh axis.
        UserError: a large parameter that the mesh would leave whole on every device.
    """
    out = {}
    for path, leaf in flat_boxed(boxed).items():
        if not isinstance(leaf, nn.LogicallyPartitioned):
            raise ValueError(f"parameter {path} has no logical axes")
        wanted = _mesh_axes(path, leaf.names)
        spec = _divisible(leaf.value.shape, wanted, mesh)
        _check_sharded(path, leaf.value.shape, spec, wanted, mesh)
        out[path] = NamedSharding(mesh, spec)
    return out


def _mesh_axes(path: str, names: tuple[str | None, ...]) -> list[Any]:
    """The rules applied to a parameter's axes."""
    rules = dict(RULES)
    unknown = [a for a in names if a is not None and a not in rules]
    if unknown:
        raise ValueError(f"parameter {path}: no sharding rule for axis {unknown[0]!r}")
    axes = [None if name is None else rules[name] for name in names]
    used = [axis for entry in axes for axis in _flat(entry)]
    if len(used) != len(set(used)):
        # Flax would silently leave the second one whole.
        raise ValueError(f"parameter {path}: axes {names} collide, two of them go over {used[0]!r}")
    return axes


def _flat(entry: str | tuple[str, ...] | None) -> tuple[str, ...]:
    """The mesh axes of one entry of a `PartitionSpec`."""
    return (entry,) if isinstance(entry, str) else entry or ()


def _check_sharded(
    path: str, shape: tuple[int, ...], spec: PartitionSpec, wanted: list[Any], mesh: Any
) -> None:
    ways = mesh_ways(mesh, ("fsdp", "tensor"))
    if ways == 1 or math.prod(shape) < LARGE:
        return
    if all(axis is None for axis in spec):
        raise UserError(
            f"config.mesh: {path} {shape} would lie whole on every device, as neither "
            f"fsdp={mesh.shape['fsdp']} nor tensor={mesh.shape['tensor']} divides its sides"
        )
    if EMBED_AXIS in wanted and EMBED_AXIS not in spec:
        raise UserError(
            f"config.mesh: {path} {shape} would lie whole on all {mesh.shape[EMBED_AXIS]} devices "
            f"of fsdp, which do not divide its side"
        )


def flat_boxed(boxed: Any) -> dict[str, Any]:
    """Nested boxed parameters as a flat dict by path."""
    return flatten_dict(boxed, sep="/")


def shapes(boxed: Any) -> Mapping[str, tuple[int, ...]]:
    """Shape of every parameter by path."""
    return {p: leaf.value.shape for p, leaf in flat_boxed(boxed).items()}


def _divisible(shape: tuple[int, ...], spec: list[Any], mesh: Any) -> PartitionSpec:
    """Leave an axis whole where the mesh does not divide it (small or odd-sized parameters)."""
    return PartitionSpec(*[_fitting(*side, mesh) for side in zip(shape, spec, strict=True)])


def _fitting(size: int, entry: Any, mesh: Any) -> Any:
    """The entry, or as many of its first mesh axes as divide a side of this size."""
    axes = _flat(entry)
    while axes and size % mesh_ways(mesh, axes):
        axes = axes[:-1]
    return entry if axes == _flat(entry) else axes or None
