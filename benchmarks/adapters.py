"""How the low-rank adapters of both contenders begin: alike, without a file between them."""

from __future__ import annotations

import zlib

import numpy as np


def start(path: str, shape: tuple[int, ...]) -> np.ndarray:
    """The first or second factor of all layers.

    Args:
        path: such as "decoder/blocks/q/lora_a".
        shape: [L, in, rank] or [L, rank, out].

    Returns:
        float32 of that shape; the second factor is zero.
    """
    if path.endswith("lora_b"):
        return np.zeros(shape, np.float32)
    rng = np.random.default_rng(zlib.crc32(path.encode()))
    drawn = rng.uniform(-1, 1, shape) * np.sqrt(6 / shape[-2])
    return drawn.astype(np.float32)
