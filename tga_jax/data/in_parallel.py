"""Work on many items in worker processes, with the results in order."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from itertools import islice
from multiprocessing import resource_tracker
from typing import Any, TypeVar

from tga_jax.cluster.watch import noting
from tga_jax.environment import variable

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
    with children_without_signals():
        pool = ProcessPoolExecutor(workers, context, initializer=_begin, initargs=(work,))
    try:
        waiting: deque[Future[list[Result]]] = deque()
        for task in tasks:
            with children_without_signals():  # a process is started when there is work for it
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


@contextlib.contextmanager
def children_without_signals() -> Iterator[None]:
    """Threads and processes that begin inside never get SIGTERM or Ctrl-C.

    Both often go to a whole process group, and only this process knows what is to be done: it may
    still want results, and the user is to see one line. A blocked signal is inherited, so it holds
    while a worker is starting, too. Another thread of this process takes a signal that comes
    meanwhile; what it means is raised at the end, as a worker that is half started would fail.
    """
    with noting():
        _start_resource_tracker()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_resource_tracker() -> None:
    """Starts Python's own process that frees shared memory, if it does not run yet.

    Here and not by the first worker, because Python then unblocks both signals in this thread. What
    an early end leaves behind it frees, and would complain of, which is no news to the user.
    """
    with variable("PYTHONWARNINGS", "ignore:resource_tracker"):
        resource_tracker.ensure_running()


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
