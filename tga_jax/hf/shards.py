"""Fill a sharded array in place, a block at a time, with no second copy anywhere; and back."""

from __future__ import annotations

import ctypes
import functools
import threading
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

NO_MESH = Mesh(np.empty((), object), ())
HOST = "cpu"  # the platform whose arrays lie in this process's own memory


class ShardFiller:
    """An array under construction: one buffer a local device, blocks written into it.

    Every process fills its own devices' parts only, and nothing goes between devices. Several
    threads may write at once, blocks that do not overlap.
    """

    def __init__(self, leaf: jax.ShapeDtypeStruct) -> None:
        """Zeros of the leaf's shape and dtype in its sharding; it has an axis at least."""
        self._leaf = leaf
        self._lock = threading.Lock()
        index = leaf.sharding.addressable_devices_indices_map(leaf.shape)
        self._start: dict[jax.Device, tuple[int, ...]] = {}
        self._part: dict[jax.Device, jax.Array] = {}
        self._memory: dict[jax.Device, np.ndarray] = {}  # of the host's devices
        for device, slices in index.items():
            bounds = [s.indices(n)[:2] for s, n in zip(slices, leaf.shape, strict=True)]
            self._start[device] = tuple(low for low, _ in bounds)
            shape = tuple(high - low for low, high in bounds)
            # On the host its memory is written to, so it must be there.
            part = jnp.zeros(shape, leaf.dtype, device=device).block_until_ready()
            self._part[device] = part
            if device.platform == HOST:
                # Asked for once, here: several threads that ask an array at once get errors.
                self._memory[device] = _memory_of(part)

    def wants(self, start: tuple[int, ...], shape: tuple[int, ...]) -> bool:
        """Whether any local device holds some of that box."""
        return any(self._overlap(device, start, shape) for device in self._part)

    def put(self, start: tuple[int, ...], block: np.ndarray, *, transposed: bool = False) -> None:
        """Write a block where its first element is at `start`.

        Args:
            start: an index for every axis of the array.
            block: the values, in any float dtype. Missing leading axes have size 1.
            transposed: the block is two-dimensional and the array's last two axes are its
                axes in the other order.
        """
        flipped = block.shape[::-1] if transposed else block.shape
        shape = (1,) * (len(start) - len(flipped)) + flipped
        for device in self._part:
            overlap = self._overlap(device, start, shape)
            if overlap is None:
                continue
            low, high = overlap
            within = [slice(a - s, b - s) for a, b, s in zip(low, high, start, strict=True)]
            inner = tuple(within[len(start) - block.ndim :])
            piece = block[inner[::-1] if transposed else inner]
            at = np.asarray(low, np.int32) - np.asarray(self._start[device], np.int32)
            if device.platform == HOST:
                _copy(self._memory[device], piece.T if transposed else piece, at)
            else:
                self._send(device, piece, at, transposed=transposed)

    def _send(self, device: jax.Device, piece: np.ndarray, at: np.ndarray, **how: bool) -> None:
        with jax.set_mesh(NO_MESH):  # each device works on its own, whatever mesh is set
            sent = jax.device_put(piece, device)
            with self._lock:
                # Wait: otherwise many blocks would be in flight, each with its own memory.
                part = _write(self._part[device], sent, at, **how)
                self._part[device] = part.block_until_ready()

    def array(self) -> jax.Array:
        """The whole array, as filled."""
        return jax.make_array_from_single_device_arrays(
            self._leaf.shape, self._leaf.sharding, list(self._part.values())
        )

    def _overlap(
        self, device: jax.Device, start: tuple[int, ...], shape: tuple[int, ...]
    ) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
        """First and last (exclusive) index of what a box shares with a device's part."""
        mine = self._start[device]
        low = tuple(max(a, b) for a, b in zip(start, mine, strict=True))
        high = tuple(
            min(a + n, b + m)
            for a, n, b, m in zip(start, shape, mine, self._part[device].shape, strict=True)
        )
        return (low, high) if all(a < b for a, b in zip(low, high, strict=True)) else None


@functools.partial(jax.jit, donate_argnums=0, static_argnames="transposed")
def _write(part: jax.Array, block: jax.Array, at: jax.Array, *, transposed: bool) -> jax.Array:
    block = block.T if transposed else block
    block = block.reshape((1,) * (part.ndim - block.ndim) + block.shape).astype(part.dtype)
    new = jax.lax.dynamic_update_slice(_bits(part), _bits(block), tuple(at))
    return jax.lax.bitcast_convert_type(new, part.dtype)


def _bits(x: jax.Array) -> jax.Array:
    """16-bit floats as integers: XLA's CPU backend rewrites the whole of a bfloat16 array."""
    return jax.lax.bitcast_convert_type(x, jnp.uint16) if x.dtype.itemsize == 2 else x


def _memory_of(part: jax.Array) -> np.ndarray:
    """The memory of an array of the host, which nobody else has seen yet, to be written to."""
    memory: Any = (ctypes.c_char * part.nbytes).from_address(part.unsafe_buffer_pointer())
    return np.frombuffer(memory, part.dtype).reshape(part.shape)


def _copy(whole: np.ndarray, block: np.ndarray, at: np.ndarray) -> None:
    """Write a block into the memory of an array.

    A program that did it would rewrite a whole layer for each block, as XLA's CPU backend has no
    updates of 16-bit arrays in place.
    """
    lead = whole.ndim - block.ndim
    box = tuple(slice(i, i + n) for i, n in zip(at[lead:], block.shape, strict=True))
    place, block = whole[(*at[:lead], *box)], row_major(block)
    if place.dtype == block.dtype:  # bits are copied faster than numpy copies a bfloat16
        bits = f"u{block.itemsize}"
        place, block = place.view(bits), block.view(bits)
    place[...] = block


def row_major(block: np.ndarray) -> np.ndarray:
    """The same values, each row of them in one piece of memory.

    JAX puts a transposed matrix in order several times as fast as numpy does.
    """
    if block.ndim != 2 or block.flags.c_contiguous or block.itemsize > 4:
        return np.ascontiguousarray(block)
    try:
        host = jax.local_devices(backend=HOST)[0]
    except RuntimeError:  # JAX_PLATFORMS leaves the CPU out
        return np.ascontiguousarray(block)
    with jax.set_mesh(NO_MESH):
        return np.asarray(jax.device_put(block, host))


def gather(array: jax.Array | np.ndarray, layer: int | None = None) -> np.ndarray:
    """An array, or one layer of it, whole on this host; of several processes all must call it."""
    if not isinstance(array, np.ndarray) and _lies_here(array):
        array = np.asarray(array.addressable_data(0))  # a view
    if isinstance(array, np.ndarray) or array.is_fully_addressable:
        return np.asarray(array if layer is None else array[layer])
    sharding = array.sharding
    assert isinstance(sharding, NamedSharding)
    whole = NamedSharding(sharding.mesh, PartitionSpec())
    taken = _gathering(whole, layer is None)(array, np.int32(layer or 0))
    return np.asarray(taken.addressable_data(0))


def _lies_here(array: jax.Array) -> bool:
    """Whether the whole array is in this process's memory, in one piece."""
    platforms = {device.platform for device in array.devices()}
    return array.is_fully_replicated and platforms == {HOST}


@functools.cache
def _gathering(whole: NamedSharding, everything: bool) -> Callable[..., jax.Array]:
    return jax.jit(lambda x, i: x if everything else x[i], out_shardings=whole)
