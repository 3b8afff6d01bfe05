"""Threads for work on arrays and files, which holds Python's lock for moments only."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

MOST = 16  # each has a few blocks of memory


def pool() -> ThreadPoolExecutor:
    """Returns a thread for each core that this process may use, up to `MOST`."""
    return ThreadPoolExecutor(min(len(os.sched_getaffinity(0)), MOST))


def in_threads(tasks: Iterable[Callable[[], None]]) -> None:
    """Does all tasks, begun in their order; after the first error no more of them are begun."""
    with pool() as workers:
        for _ in workers.map(lambda task: task(), tasks):
            pass
