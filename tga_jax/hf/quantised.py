"""Kernels of a checkpoint made into few bits while they are read."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from tga_jax.hf.names import Slot, slots
from tga_jax.hf.shards import NO_MESH, ShardFiller
from tga_jax.hf.tensor_files import StoredTensor
from tga_jax.models.quantised import CODES, SCALE, is_quantised, kernel_path, quantise

Leaves = Mapping[str, jax.ShapeDtypeStruct]
Chunks = Callable[[StoredTensor], Iterator[tuple[int, int]]]


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


def fill_quantised(
    leaves: Leaves,
    path: str,
    layers: Sequence[Slot],
    tensors: Mapping[str, StoredTensor],
    chunks: Chunks,
) -> dict[str, jax.Array]:
    """The integers and scales of a kernel, by path; a chunk of it is a float at a time.

    Args:
        leaves: the wanted parameters.
        path: of the kernel.
        layers: its tensors, float[F, D] each: a chunk has all inputs of some outputs,
            so that it has whole blocks whatever the mesh.
        tensors: by name.
        chunks: bounds of the rows that are read at once.
    """
    stem = path.removesuffix("kernel")
    paths = stem + CODES, stem + SCALE
    fillers = [ShardFiller(leaves[part]) for part in paths]
    kind = "nf4" if leaves[paths[0]].dtype == jnp.uint8 else "int8"
    for slot in layers:
        tensor = tensors[slot.name]
        for start, stop in chunks(tensor):
            place = (slot.layer or 0, 0, start)
            shape = 1, math.prod(tensor.shape[1:]), stop - start
            if any(filler.wants(place, shape) for filler in fillers):
                parts = _quantised(tensor.rows(start, stop), kind)
                for filler, part in zip(fillers, parts, strict=True):
                    filler.put(place, part)
    return {part: filler.array() for part, filler in zip(paths, fillers, strict=True)}


def _quantised(rows: np.ndarray, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """float[r, D], rows of a file's tensor -> integers and scales of [D, r]."""
    with jax.set_mesh(NO_MESH):
        codes, scale = _jitted(kind)(jax.device_put(rows, jax.local_devices()[0]))
        return np.asarray(codes), np.asarray(scale)


@functools.cache
def _jitted(kind: str) -> Callable[[jax.Array], tuple[jax.Array, jax.Array]]:
    return jax.jit(lambda rows: quantise(rows.T, kind))
