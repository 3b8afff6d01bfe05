"""A measured value with its 95% interval, as evaluation makes it and the report shows it."""

from __future__ import annotations

import dataclasses

Interval = tuple[float, float]


@dataclasses.dataclass(frozen=True)
class Figure:
    """A value, its 95% interval where it is known, and of how many items it is.

    Attributes:
        value: what was measured.
        low: the lower end of the interval.
        high: its upper end.
        count: how many items the value is of.
        few: whether it is of too few independent items to say much.
    """

    value: float
    low: float | None = None
    high: float | None = None
    count: int | None = None
    few: bool = False

    @property
    def interval(self) -> Interval:
        """Both ends of an interval that is known."""
        assert self.low is not None and self.high is not None
        return self.low, self.high

    @property
    def excludes_zero(self) -> bool:
        """Of a difference: whether its interval leaves out that there is none."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)
