"""An answer with what is said of it, and a row of metrics about such answers."""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from tga_jax.evaluation import metrics
from tga_jax.evaluation.items import EvalItem
from tga_jax.figure import Figure

FEW = 30  # independent items, below which a figure says that it is of few


@dataclasses.dataclass(frozen=True)
class Result:
    """An answer and what is said of it.

    Attributes:
        item: the question.
        text: the answer.
        margin: the refusal margin; None where it was not computed.
        verdicts: judge's name -> whether the answer refuses, None without a verdict; the judge
            that counts is the first.
        correct: whether it is right, None where there is no right answer.
        truncated: whether it was cut off by the limit of new tokens; None: not recorded.
    """

    item: EvalItem
    text: str
    margin: float | None
    verdicts: dict[str, bool | None]
    correct: bool | None = None
    truncated: bool | None = None

    @property
    def refused(self) -> bool | None:
        """The verdict of the first judge, which is the one that counts."""
        return self.verdict(next(iter(self.verdicts)))

    @property
    def empty(self) -> bool:
        """Whether there is no answer."""
        return not self.text.strip()

    @property
    def cluster(self) -> Hashable:
        """What the answer is about: its image, or the question itself."""
        item = self.item
        return ("text", item.id) if item.image is None else (str(item.image_dir), item.image)

    def verdict(self, judge: str) -> bool | None:
        """What a judge says; of an empty answer False, whatever it says."""
        return False if self.empty else self.verdicts[judge]


@dataclasses.dataclass(frozen=True)
class Row:
    """A line of metrics.json, but for what produced it."""

    scene: str
    metric: str
    figure: Figure
    judge: str | None = None  # None: the one that counts
    more: dict[str, Any] = dataclasses.field(default_factory=dict)

    def line(self, *, benchmark: str, model: str, settings: dict[str, Any]) -> dict[str, Any]:
        """The line of metrics.json, with what produced it."""
        return {
            "benchmark": benchmark,
            "scene": self.scene,
            "metric": self.metric,
            "value": self.figure.value,
            "count": self.figure.count,
            "interval": list(self.figure.interval),
            "model": model,
            "settings": settings,
            **self.more,
        }


def share_row(
    scene: str,
    metric: str,
    of: Sequence[Result],
    outcomes: Sequence[bool],
    judge: str | None = None,
    more: Mapping[str, Any] | None = None,
) -> Row:
    """A row of the share of `outcomes`, one for each of the results `of`."""
    figure = metrics.share(outcomes, [r.cluster for r in of])
    return Row(scene, metric, figure, judge, {**(more or {}), **independence(of)})


def nothing_measured(name: str, results: Sequence[Result]) -> str:
    """What is to be said of answers that are all empty; "" where one is not."""
    if not all(result.empty for result in results):
        return ""
    return (
        f"WARNING: all {len(results)} answers of {name} are empty, so nothing was measured: its "
        "shares say nothing about refusals"
    )


def independence(*groups: Sequence[Result]) -> dict[str, Any]:
    """How many independent items there are, where that is fewer than the items, or few.

    What compares several groups rests on few where one of them is of few.
    """
    clusters = [{r.cluster for r in group} for group in groups]
    count, independent = sum(map(len, groups)), len(set().union(*clusters))
    found: dict[str, Any] = {"clusters": independent} if independent < count else {}
    return found | ({"few": True} if min(map(len, clusters)) < FEW else {})
