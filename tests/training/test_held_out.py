"""Which step had the best held-out figure."""

from __future__ import annotations

import math
from typing import Any, cast

import pytest

from tga_jax.training.held_out import HeldOut
from tga_jax.training.step import TrainState

ANY_STATE = cast(TrainState, None)


@pytest.mark.parametrize(
    ("values", "best"),
    [
        ([9.0, 1.0, 0.5, 0.7], 2),  # step 0 is before the training
        ([9.0, math.nan, 1.0, 0.1], 3),
        ([9.0, -math.inf, 1.0, math.nan], 2),
        ([9.0, math.nan, math.nan, math.nan], None),
    ],
)
def test_a_figure_that_is_no_number_is_never_the_best(values: list[float], best: Any) -> None:
    given = iter(values)
    taken = HeldOut(
        lambda state: {"held_out_loss": next(given)}, every=1, steps=3, best="held_out_loss"
    )
    for step in range(4):
        taken.take(ANY_STATE, step)
    assert taken.best_step == best
    lines = [{"step": i, "held_out_loss": v} for i, v in enumerate(values)]
    again = HeldOut(lambda state: {}, every=1, steps=3, best="held_out_loss", before=lines)
    assert again.best_step == best
