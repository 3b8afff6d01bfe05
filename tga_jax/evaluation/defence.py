"""What a defence at inference does to a model's answers; each defence has a file of its own."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tga_jax.data.records import Question
from tga_jax.evaluation.items import EvalItem
from tga_jax.evaluation.pace import Time
from tga_jax.run.answerer import Reply

# (name of the pass, all questions as it asks them, rows to ask) -> their replies
Ask = Callable[[str, Sequence[Question], Sequence[int]], dict[int, Reply]]


@dataclasses.dataclass(frozen=True)
class Defended:
    """What a defence made of a benchmark.

    Attributes:
        replies: row -> reply, of all rows.
        lines: what it did to the questions, for a file of its own.
        times: of what it did beside asking the model.
    """

    replies: dict[int, Reply]
    lines: Sequence[dict[str, Any]] = ()
    times: Sequence[Time] = ()


class Defence:
    """No defence: every question is asked as it is. The defences say what they do instead."""

    name = "none"
    shift: np.ndarray | None = None  # float32[L, D], added to the outputs of the model's layers

    @property
    def settings(self) -> dict[str, Any] | None:
        """All of it that decides the answers."""
        return None

    def answers(
        self, ask: Ask, items: Sequence[EvalItem], questions: Sequence[Question]
    ) -> Defended:
        """The replies to a benchmark.

        Args:
            ask: asks the model.
            items: of the benchmark.
            questions: the same, as the model is asked them.
        """
        return Defended(ask("", questions, range(len(items))))
