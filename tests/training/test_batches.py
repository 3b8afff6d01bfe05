"""Batches that are fetched before they are used."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tga_jax.errors import UserError
from tga_jax.training.batches import Ahead, DeviceBatch


class FakeBatches(Iterator[DeviceBatch]):
    """Five batches, or fewer and then a broken one; the state is the number of fetched ones."""

    def __init__(self, *, broken: int = 99) -> None:
        self._at, self._broken = 0, broken

    def __next__(self) -> DeviceBatch:
        if self._at == self._broken:
            raise UserError("record x: no such file")
        if self._at == 5:
            raise StopIteration
        self._at += 1
        return DeviceBatch({}, (f"batch {self._at}",), 1)

    def get_state(self) -> dict[str, int]:
        return {"step": self._at}


@pytest.mark.parametrize("lead", [0, 2])
def test_the_state_is_that_of_the_returned_batch(lead: int) -> None:
    ahead = Ahead(FakeBatches(), lead)
    found = []
    while (batch := ahead.next()) is not None:
        found.append((*batch.ids, ahead.get_state()["step"]))
    assert found == [(f"batch {n}", n) for n in range(1, 6)] and ahead.problem is None


@pytest.mark.parametrize(("lead", "known"), [(0, [False] * 4), (2, [False, False, True, True])])
def test_a_problem_is_known_so_many_batches_early(lead: int, known: list[bool]) -> None:
    ahead = Ahead(FakeBatches(broken=4), lead)
    found = []
    for number in (1, 2, 3, 4):
        batch = ahead.next()
        assert batch is not None and batch.ids == (f"batch {number}",)
        found.append(ahead.problem is not None)
    assert found == known
    assert ahead.next() is None and str(ahead.problem) == "record x: no such file"
    assert ahead.get_state() == {"step": 4}
