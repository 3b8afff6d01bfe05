"""Logical axes -> mesh axes, in one place."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
from flax.traverse_util import flatten_dict
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

BATCH_AXES = ("data", "fsdp")
EMBED_AXIS = "fsdp"

# Parameters: a matrix is cut along its "embed" side over fsdp and along the other over tensor.
# Activations: samples over data and fsdp, inner widths over tensor.
RULES: tuple[tuple[str, str | tuple[str, ...] | None], ...] = (
    ("batch", BATCH_AXES),
    ("length", None),
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
)


def mesh_ways(mesh: Mesh | AbstractMesh, axes: tuple[str, ...]) -> int:
    """Into how many pieces these axes cut together; 1 without a mesh."""
    return 1 if mesh.empty else math.prod(mesh.shape[axis] for axis in axes)


def batch_shards(mesh: Mesh) -> int:
    """Into how many pieces a batch of samples is cut."""
    return mesh_ways(mesh, BATCH_AXES)


def batch_sharding(mesh: Mesh, *, leading: int = 0) -> NamedSharding:
    """Samples over data and fsdp; `leading` axes before the sample axis are not cut."""
    return NamedSharding(mesh, PartitionSpec(*[None] * leading, BATCH_AXES))


def replicated(mesh: Mesh) -> NamedSharding:
    """The same on every device."""
    return NamedSharding(mesh, PartitionSpec())


def param_shardings(boxed: Any, mesh: Mesh) -> dict[str, NamedSharding]:
    """Sharding of every parameter by path.

    Args:
        boxed: `jax.eval_shape(model.init, key)`: shapes boxed with their logical axes.
        mesh: the mesh.

    Raises:
        ValueError: a parameter without logical axes, or an axis without a rule.
    """
    rules = dict(RULES)
    out = {}
    for path, leaf in flat_boxed(boxed).items():
        if not isinstance(leaf, nn.LogicallyPartitioned):
            raise ValueError(f"parameter {path} has no logical axes")
        unknown = [a for a in leaf.names if a is not None and a not in rules]
        if unknown:
            raise ValueError(f"parameter {path}: no sharding rule for axis {unknown[0]!r}")
        spec = nn.logical_to_mesh_axes(leaf.names, RULES)
        out[path] = NamedSharding(mesh, _divisible(leaf.value.shape, spec, mesh))
    return out


def flat_boxed(boxed: Any) -> dict[str, Any]:
    """Nested boxed parameters as a flat dict by path."""
    return flatten_dict(boxed, sep="/")


def shapes(boxed: Any) -> Mapping[str, tuple[int, ...]]:
    """Shape of every parameter by path."""
    return {p: leaf.value.shape for p, leaf in flat_boxed(boxed).items()}


def _divisible(shape: tuple[int, ...], spec: Any, mesh: Mesh) -> PartitionSpec:
    """Leave an axis whole where the mesh does not divide it (small or odd-sized parameters)."""
    parts = []
    for size, axis in zip(shape, spec, strict=True):
        ways = 1 if axis is None else mesh.shape[axis]
        parts.append(axis if size % ways == 0 else None)
    return PartitionSpec(*parts)
