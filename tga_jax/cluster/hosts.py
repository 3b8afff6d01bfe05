"""What the processes of one run tell each other, through JAX's coordination service.

Every process must make these calls in the same order. With one process they do nothing.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import sys
from collections.abc import Callable, Iterator
from typing import Any

import jax

_FOREVER_MS = 7 * 24 * 3600 * 1000  # the watch ends a process whose partners are gone
_calls = itertools.count()
_alone = False


def client() -> Any:
    """JAX's client of the coordination service; None where there is only this process."""
    from jax._src.distributed import global_state  # has no public name; Orbax takes it from there

    return global_state.client


def several() -> bool:
    """Whether the run has more than one process that takes part."""
    return jax.process_count() > 1 and not _alone


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Inside, the others do not take part: what waits for them elsewhere does not."""
    global _alone
    _alone = True
    try:
        yield
    finally:
        _alone = False


def is_first() -> bool:
    """Whether this is the process that writes logs and results."""
    return jax.process_index() == 0


def log(text: str) -> None:
    """A line for the person who watches, from the first process."""
    if is_first():
        print(text, file=sys.stderr, flush=True)


def broadcast_from_first(make: Callable[[], Any]) -> Any:
    """A JSON value that the first process makes, on all of them.

    So that files which the first process writes decide the same for all, however late a shared
    file system shows them.
    """
    if not several():
        return make()
    key = f"tga/value/{next(_calls)}"
    if is_first():
        client().key_value_set_bytes(key, json.dumps(make()).encode())
    return json.loads(client().blocking_key_value_get_bytes(key, _FOREVER_MS))


def all_gather(value: Any) -> list[Any]:
    """Each process's JSON value, in their order."""
    if not several():
        return [value]
    key = f"tga/all/{next(_calls)}"
    client().key_value_set_bytes(f"{key}/{jax.process_index()}", json.dumps(value).encode())
    places = range(jax.process_count())
    found = [client().blocking_key_value_get_bytes(f"{key}/{i}", _FOREVER_MS) for i in places]
    return [json.loads(text) for text in found]


def barrier(why: str) -> None:
    """Wait until every process is here."""
    if several():
        client().wait_at_barrier(f"tga/{why}/{next(_calls)}", _FOREVER_MS)
