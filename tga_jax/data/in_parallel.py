"""Work on many items in worker processes, with the results in order."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from itertools import islice
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

ITEMS_A_TASK = 16  # what a worker process gets at a time


def map_in_order(
    work: Callable[[Item], Result], items: Iterable[Item], *, workers: int
) -> Iterator[Result]:
    """Yields `work(item)` of every item, in order.

    Args:
        work: travels to each worker process once, so it may hold much.
        items: are taken only as fast as they are worked on.
        workers: processes; with 0 all is done in this one.
    """
    if not workers:
        yield from map(work, items)
        return
    items = iter(items)
    tasks = iter(lambda: list(islice(items, ITEMS_A_TASK)), [])
    # Forked processes would inherit JAX's threads in an unknown state.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, context, initializer=_begin, initargs=(work,))
    try:
        waiting: deque[Future[list[Result]]] = deque()
        for task in tasks:
            waiting.append(pool.submit(_do, task))
            if len(waiting) > 4 * workers:  # no more in memory than keeps all of them busy
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def cores() -> int:
    """Returns how many cores this process may use."""
    return len(os.sched_getaffinity(0))


def end_with_parent(*_: Any) -> None:
    """Makes a worker process end when its parent was killed and so could not say goodbye."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, name="parent", daemon=True).start()


_work: Callable[[Any], Any]


def _begin(work: Callable[[Any], Any]) -> None:
    """In a worker process: keep what it is to do."""
    global _work
    _work = work
    end_with_parent()


def _do(items: list[Any]) -> list[Any]:
    return [_work(item) for item in items]
