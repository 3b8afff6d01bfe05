"""The batches that the loop trains on: on the devices, in their order, some fetched ahead."""

from __future__ import annotations

import dataclasses
import math
from collections import deque
from typing import Any, Protocol

import jax

from tga_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class DeviceBatch:
    """A batch on the devices, with what the loop wants to know of it on the host."""

    arrays: dict[str, jax.Array]
    ids: tuple[str, ...]
    tokens: int  # real ones of the main sequences

    @property
    def images(self) -> int:
        """Images that the vision tower encodes, the filling of rows with fewer included."""
        return math.prod(self.arrays["images"].shape[:3])


class Batches(Protocol):
    """An iterator over device batches whose position can be saved."""

    def __next__(self) -> DeviceBatch: ...

    def get_state(self) -> dict[str, Any]:
        """State from which the batch after the last returned one comes next."""
        ...


class Ahead:
    """Batches that are fetched some steps before they are used.

    Where processes share a step, the others may have begun two more before they wait for one that
    stops. A process that learns early that it cannot make a batch can still go as far as they are,
    and all of them save there.
    """

    def __init__(self, batches: Batches, lead: int) -> None:
        """`lead`: how many batches are kept beside the one that `next` returns."""
        self._batches, self._lead = batches, lead
        self._ready: deque[tuple[DeviceBatch, dict[str, Any]]] = deque()
        self._position, self._is_at_end = batches.get_state(), False
        self.problem: UserError | None = None  # why no further batch can be made

    def next(self) -> DeviceBatch | None:
        """The next batch; None: it cannot be made, see `problem`."""
        while len(self._ready) <= self._lead and not (self._is_at_end or self.problem):
            try:
                self._ready.append((next(self._batches), self._batches.get_state()))
            except StopIteration:
                self._is_at_end = True
            except UserError as error:
                self.problem = error
        if not self._ready:
            return None
        batch, self._position = self._ready.popleft()
        return batch

    def get_state(self) -> dict[str, Any]:
        """The batches' state after the last one that `next` returned."""
        return self._position
