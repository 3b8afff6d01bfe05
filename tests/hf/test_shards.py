"""An array that several threads fill at once."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tga_jax.hf.shards import ShardFiller

ROWS, WIDTH, TIMES = 4, 8, 200


@pytest.fixture
def hasty() -> Iterator[None]:
    """Threads that take turns all the time."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(usual)


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_threads_that_write_their_first_block_at_once(dtype: str) -> None:
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    leaf = jax.ShapeDtypeStruct((ROWS, WIDTH), jnp.dtype(dtype), sharding=device)
    failed: list[Exception] = []

    def write(filler: ShardFiller, start: threading.Barrier, row: int) -> None:
        start.wait()
        try:
            filler.put((row, 0), np.full(WIDTH, row + 1, np.float32))
        except Exception as error:  # a thread's own, which nobody else would see
            failed.append(error)

    for _ in range(TIMES):
        filler, start = ShardFiller(leaf), threading.Barrier(ROWS)
        threads = [threading.Thread(target=write, args=(filler, start, r)) for r in range(ROWS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failed
        expected = np.repeat(np.arange(1, ROWS + 1), WIDTH).reshape(ROWS, WIDTH)
        np.testing.assert_array_equal(np.asarray(filler.array(), np.float32), expected)
