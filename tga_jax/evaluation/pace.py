"""How many seconds a question takes, kept beside the answers: evaluate/<benchmark>/seconds.json.

The time is that on the devices, without compiling, reading images and judging. Every pass of a
defence counts: a question costs what all passes together took, divided by the number of questions.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tga_jax.evaluation.items import ALL
from tga_jax.evaluation.result import Row
from tga_jax.figure import Figure
from tga_jax.files import read_json

FILE = "seconds.json"


@dataclasses.dataclass(frozen=True)
class Time:
    """Seconds that a question took in a pass; `cold`: the program was compiled meanwhile."""

    seconds: float
    cold: bool


def seconds_a_question(
    passes: Mapping[str, Sequence[Time]], questions: int
) -> dict[str, Any] | None:
    """What seconds.json says of a benchmark; None where no question was timed.

    A pass takes the mean of its warm times for each of its questions; where it has none, of the
    cold ones, and "with_compiling" says so.

    Args:
        passes: name of the pass -> the times of the questions that it asked.
        questions: how many the benchmark has.
    """
    total, compiling = 0.0, False
    for times in filter(None, passes.values()):
        warm = [time for time in times if not time.cold]
        compiling |= not warm
        counted = warm or times
        total += len(times) * sum(time.seconds for time in counted) / len(counted)
    if not any(passes.values()):
        return None
    found = {"seconds": round(total / questions, 6), "questions": questions}
    return found | ({"with_compiling": True} if compiling else {})


def seconds_row(folder: Path) -> list[Row]:
    """The row of metrics.json that a benchmark's seconds.json makes, if there is one."""
    found = read_json(folder / FILE, missing_ok=True)
    if found is None:
        return []
    value = found["seconds"]
    more = {key: found[key] for key in ("with_compiling",) if key in found}
    return [Row(ALL, "seconds", Figure(value, value, value, found["questions"]), more=more)]
