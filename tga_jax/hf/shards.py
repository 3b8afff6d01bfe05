"""Fill a sharded array in place, a block at a time, with no second copy anywhere; and back."""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

NO_MESH = Mesh(np.empty((), object), ())


class ShardFiller:
    """An array under construction: one buffer a local device, blocks written into it.

    Every process fills its own devices' parts only, and nothing goes between devices.
    """

    def __init__(self, leaf: jax.ShapeDtypeStruct) -> None:
        """Zeros of the leaf's shape and dtype in its sharding."""
        self._leaf = leaf
        index = leaf.sharding.addressable_devices_indices_map(leaf.shape)
        self._start: dict[jax.Device, tuple[int, ...]] = {}
        self._part: dict[jax.Device, jax.Array] = {}
        for device, slices in index.items():
            bounds = [s.indices(n)[:2] for s, n in zip(slices, leaf.shape, strict=True)]
            self._start[device] = tuple(low for low, _ in bounds)
            shape = tuple(high - low for low, high in bounds)
            self._part[device] = jnp.zeros(shape, leaf.dtype, device=device)

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
        for device, part in self._part.items():
            overlap = self._overlap(device, start, shape)
            if overlap is None:
                continue
            low, high = overlap
            within = [slice(a - s, b - s) for a, b, s in zip(low, high, start, strict=True)]
            inner = tuple(within[len(start) - block.ndim :])
            piece = block[inner[::-1] if transposed else inner]
            at = np.asarray(low, np.int32) - np.asarray(self._start[device], np.int32)
            with jax.set_mesh(NO_MESH):  # each device works on its own, whatever mesh is set
                part = _write(part, jax.device_put(piece, device), at, transposed=transposed)
            # Wait: otherwise many blocks would be in flight, each with its own memory.
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


def gather(array: jax.Array | np.ndarray, layer: int | None = None) -> np.ndarray:
    """An array, or one layer of it, whole on this host; of several processes all must call it."""
    if isinstance(array, np.ndarray) or array.is_fully_addressable:
        return np.asarray(array if layer is None else array[layer])
    sharding = array.sharding
    assert isinstance(sharding, NamedSharding)
    whole = NamedSharding(sharding.mesh, PartitionSpec())
    taken = _gathering(whole, layer is None)(array, np.int32(layer or 0))
    return np.asarray(taken.addressable_data(0))


@functools.cache
def _gathering(whole: NamedSharding, everything: bool) -> Callable[..., jax.Array]:
    return jax.jit(lambda x, i: x if everything else x[i], out_shardings=whole)
