"""Kernels of a checkpoint made into few bits while they are read."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from tga_jax.hf.names import Slot, slots
from tga_jax.hf.shards import NO_MESH, ShardFiller
from tga_jax.models.quantised import CODES, SCALE, is_quantised, kernel_path, quantise

Leaves = Mapping[str, jax.ShapeDtypeStruct]


def slots_of(leaves: Leaves, decoder: str) -> dict[str, list[Slot]]:
    """What the files hold, by our path: in place of integers and scales, their kernel.

    Args:
        leaves: the wanted parameters.
        decoder: the language model's type.
    """
    out = {}
    for path, leaf in leaves.items():
        if path.endswith(f"/{CODES}"):
            layers, stored, outputs = leaf.shape
            inputs = stored * 2 if leaf.dtype == jnp.uint8 else stored
            kernel = kernel_path(path)
            out[kernel] = slots(kernel, (layers, inputs, outputs), decoder=decoder)
        elif not is_quantised(path):
            out[path] = slots(path, leaf.shape, decoder=decoder)
    return out


class QuantisedFiller:
    """The integers and scales of a kernel under construction; a few of its rows are floats."""

    def __init__(self, path: str, leaves: Leaves) -> None:
        """`path` is the kernel's; `leaves` holds its integers and scales."""
        stem = path.removesuffix("kernel")
        self._paths = stem + CODES, stem + SCALE
        self._fillers = [ShardFiller(leaves[part]) for part in self._paths]
        self._kind = "nf4" if leaves[self._paths[0]].dtype == jnp.uint8 else "int8"

    def wants(self, slot: Slot, start: int, stop: int) -> bool:
        """Whether any local device holds something of these rows of the file's tensor.

        They are all inputs of some outputs, so that blocks are whole whatever the mesh.
        """
        shape = 1, math.prod(slot.shape[1:]), stop - start
        return any(filler.wants((slot.layer or 0, 0, start), shape) for filler in self._fillers)

    def put(self, slot: Slot, start: int, rows: np.ndarray) -> None:
        """Rows of the file's tensor, float[r, D], of which the first is `start`."""
        parts = _quantised(rows, self._kind)
        for filler, part in zip(self._fillers, parts, strict=True):
            filler.put((slot.layer or 0, 0, start), part)

    def arrays(self) -> dict[str, jax.Array]:
        """Both as filled, by their paths."""
        pairs = zip(self._paths, self._fillers, strict=True)
        return {path: filler.array() for path, filler in pairs}


def _quantised(rows: np.ndarray, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """float[r, D], rows of a file's tensor -> integers and scales of [D, r]."""
    with jax.set_mesh(NO_MESH):
        kernel = jax.device_put(rows.T, jax.local_devices()[0])
        codes, scale = _jitted(kind)(kernel)
        return np.asarray(codes), np.asarray(scale)


@functools.cache
def _jitted(kind: str) -> Callable[[jax.Array], tuple[jax.Array, jax.Array]]:
    return jax.jit(lambda kernel: quantise(kernel, kind))
