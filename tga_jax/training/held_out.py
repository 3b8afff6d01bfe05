"""Figures of samples that are not trained on, taken on the way through a stage."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from tga_jax.cluster import hosts
from tga_jax.training.metric_table import METRICS
from tga_jax.training.step import TrainState

Figures = Mapping[str, float]
CHOICES = {metric.name: metric.best for metric in METRICS if metric.best}  # for config.<stage>.best


class HeldOut:
    """When the figures are taken, and which step had the best.

    Every process takes them at the same steps, and gets the same figures.

    Attributes:
        best_step: the step with the best figure so far; None where there is none yet. Step 0, of
            which there is no checkpoint, is never it.
    """

    def __init__(
        self,
        figures: Callable[[TrainState], Figures],
        *,
        every: int,
        steps: int,
        best: str = "",
        before: Iterable[Mapping[str, Any]] = (),
    ) -> None:
        """Nothing is computed yet.

        Args:
            figures: takes them of a state.
            every: they are taken before the first step, after so many, and after the last; 0:
                never.
            steps: how many the stage has.
            best: the figure whose best value counts, one of CHOICES; "": none does.
            before: the lines of `metrics.jsonl` up to the step from which the run goes on.
        """
        self._figures, self._every, self._steps, self._best = figures, every, steps, best
        self._value = 0.0
        self.best_step: int | None = None
        for line in before:
            self._compare(line["step"], line)

    def is_due(self, done: int) -> bool:
        """Whether they are taken after step `done`."""
        return self._every > 0 and (done % self._every == 0 or done == self._steps)

    def take(self, state: TrainState, done: int) -> dict[str, float]:
        """The figures of the state after step `done`, which are shown too."""
        began = time.monotonic()
        found = dict(self._figures(state))
        shown = ", ".join(f"{name} {value:.4f}" for name, value in found.items())
        found["held_out_seconds"] = time.monotonic() - began
        hosts.log(f"step {done}, held out: {shown} ({found['held_out_seconds']:.1f} s)")
        self._compare(done, found)
        return found

    @classmethod
    def never(cls) -> HeldOut:
        """Held-out figures of a stage for which none are wanted: they are never due."""
        return cls(lambda state: {}, every=0, steps=0)

    def _compare(self, step: int, figures: Mapping[str, Any]) -> None:
        """Remember the step if its figure is better than all before."""
        value = figures.get(self._best)
        if value is None or step == 0 or not math.isfinite(value):
            return
        better = value < self._value if CHOICES[self._best] == "least" else value > self._value
        if self.best_step is None or better:
            self._value, self.best_step = value, step
