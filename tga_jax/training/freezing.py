"""What is trained, and how fast: one table of (pattern, learning-rate factor or None).

The table alone decides about gradients, optimizer memory, weight decay and dtype. Parameters
are flat dicts keyed by paths such as "decoder/blocks/q/kernel".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from tga_jax.errors import UserError

Table = Sequence[tuple[str, float | None]]


def learning_rate_factors(paths: Iterable[str], table: Table) -> dict[str, float | None]:
    """Each parameter's factor on the learning rate; None: frozen.

    The first pattern that matches the whole path counts.

    Raises:
        UserError: a parameter matches no pattern, everything is frozen, or a pattern is not a
            regular expression.
    """
    compiled = [(_compiled(pattern), factor) for pattern, factor in table]
    factors: dict[str, float | None] = {}
    for path in paths:
        match = next((f for p, f in compiled if p.fullmatch(path)), "none")
        if match == "none":
            raise UserError(
                f"config.<stage>.trainable has no pattern for parameter {path}: "
                "add one, with a learning-rate factor or None to freeze it"
            )
        factors[path] = match  # type: ignore[assignment]
    if all(factor is None for factor in factors.values()):
        raise UserError("config.<stage>.trainable freezes every parameter: nothing to train")
    return factors


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise UserError(
            f"config.<stage>.trainable: {pattern!r} is not a regular expression ({error})"
        ) from error
