"""Host batches -> device batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding

from tga_jax.parallel.sharding import batch_sharding
from tga_jax.training.batches import DeviceBatch


class HostBatch(Protocol):
    """arrays of [A, B, ...]; `images` holds only `rows` of each micro-batch (None: all).

    B is rows, or for what belongs to a sample samples: as many, or with packing a multiple.
    """

    arrays: dict[str, np.ndarray]
    ids: tuple[str, ...]
    rows: Sequence[int] | None


class Loader(Protocol):
    """An iterator over host batches with a state."""

    def __next__(self) -> Any: ...

    def get_state(self) -> Any: ...


class DeviceBatches:
    """The loader's batches on the mesh. Copies run while the devices work on the step before."""

    def __init__(self, loader: Loader, mesh: Mesh) -> None:
        self._loader = loader
        self._sharding = batch_sharding(mesh, leading=1)

    def __next__(self) -> DeviceBatch:
        host: HostBatch = next(self._loader)
        rows = host.arrays["tokens"].shape[1]
        arrays = {
            name: _place(value, value.shape[1], self._sharding, None)
            for name, value in host.arrays.items()
            if name != "images"
        }
        arrays["images"] = _place(host.arrays["images"], rows, self._sharding, host.rows)
        tokens = int(np.sum(host.arrays["segments"] > 0))
        return DeviceBatch(arrays, host.ids, tokens)

    def get_state(self) -> Any:
        """The loader's position after the last batch."""
        return self._loader.get_state()


def _place(
    value: np.ndarray, batch: int, sharding: NamedSharding, rows: Sequence[int] | None
) -> jax.Array:
    """[A, rows held, ...] -> a global array of [A, batch, ...]."""
    where = {row: i for i, row in enumerate(range(batch) if rows is None else rows)}

    def piece(index: tuple[slice, ...] | None) -> np.ndarray:
        assert index is not None
        wanted = [where[row] for row in range(*index[1].indices(batch))]
        return value[:, wanted[0] : wanted[-1] + 1]

    shape = (value.shape[0], batch, *value.shape[2:])
    return jax.make_array_from_callback(shape, sharding, piece)
