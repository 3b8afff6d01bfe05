"""Nearest texts by inner product: exactly, block by block. The answer that others are held to."""

from __future__ import annotations

from typing import Protocol

import numpy as np

BLOCK_FLOATS = 1 << 26  # of one block of scores: 256 MB


class Search(Protocol):
    """Finds the nearest of N vectors of length 1."""

    def __call__(self, queries: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        """float32[Q, E] -> numbers int64[Q, K] and cosines float32[Q, K], best first.

        K is `count`, or N where that is less.
        """


class ExactSearch:
    """Every vector is looked at; of equal scores the lower number comes first."""

    def __init__(self, vectors: np.ndarray) -> None:
        """Takes float32[N, E]; may be memory-mapped."""
        self.vectors = vectors

    def __call__(self, queries: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        """See `Search`."""
        total = len(self.vectors)
        count, step = min(count, total), max(1, BLOCK_FLOATS // total)
        found = [
            _best(queries[i : i + step] @ self.vectors.T, count)
            for i in range(0, len(queries), step)
        ]
        if not found:
            return np.zeros((0, count), np.int64), np.zeros((0, count), np.float32)
        return np.concatenate([n for n, _ in found]), np.concatenate([s for _, s in found])


def _best(scores: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The `count` highest of float32[Q, N], ties by number."""
    limit = -np.partition(-scores, count - 1, axis=1)[:, count - 1]
    numbers = np.empty((len(scores), count), np.int64)
    for row, (values, least) in enumerate(zip(scores, limit, strict=True)):
        among = np.flatnonzero(values >= least)
        numbers[row] = among[np.argsort(-values[among], kind="stable")[:count]]
    return numbers, np.take_along_axis(scores, numbers, axis=1)
