"""What is trained, and how fast: one table of (pattern, learning-rate factor or None).

The table alone decides about gradients, optimizer memory, weight decay and dtype. Parameters
are flat dicts keyed by paths such as "decoder/blocks/q/kernel".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from tga_jax.errors import UserError

Table = Sequence[tuple[str, float | None]]


def checked_table(table: Any, key: str) -> Table:
    """The table as it was given.

    Raises:
        UserError: it is no sequence of pairs of a pattern and None or a number of 0 or more.
    """
    rows = () if isinstance(table, str) else tuple(table)
    pairs = all(isinstance(row, (tuple, list)) and len(row) == 2 for row in rows)
    if not (rows and pairs and all(_is_row(*row) for row in rows)):
        raise UserError(
            f"{key}={table!r}: give pairs of a pattern and a learning-rate factor (None freezes), "
            'as in \'(("projector/.*",1.0),(".*",None))\''
        )
    return [(pattern, factor) for pattern, factor in rows]


def _is_row(pattern: Any, factor: Any) -> bool:
    number = isinstance(factor, (int, float)) and not isinstance(factor, bool) and factor >= 0
    return isinstance(pattern, str) and (factor is None or number)


def learning_rate_factors(
    paths: Iterable[str], table: Table, *, key: str = "config.<stage>.trainable"
) -> dict[str, float | None]:
    """Each parameter's factor on the learning rate; None: frozen.

    The first pattern that matches the whole path counts.

    Args:
        paths: of the parameters.
        table: (pattern, factor).
        key: where the table stands, for messages.

    Raises:
        UserError: a parameter matches no pattern, everything is frozen, or a pattern is not a
            regular expression.
    """
    compiled = [(_compiled(pattern, key), factor) for pattern, factor in table]
    factors: dict[str, float | None] = {}
    for path in paths:
        match = next((f for p, f in compiled if p.fullmatch(path)), "none")
        if match == "none":
            raise UserError(
                f"{key} has no pattern for parameter {path}: "
                "add one, with a learning-rate factor or None to freeze it"
            )
        factors[path] = match  # type: ignore[assignment]
    if all(factor is None for factor in factors.values()):
        raise UserError(f"{key} freezes every parameter: nothing to train")
    return factors


def check_patterns(paths: Sequence[str], table: Table, key: str) -> None:
    """Refuse a pattern that is to be trained and fits no parameter, as a misspelt one does."""
    for pattern, factor in table:
        if factor is not None and not any(map(_compiled(pattern, key).fullmatch, paths)):
            raise UserError(
                f"{key}: {pattern!r} fits no parameter of this model, such as {paths[0]}"
            )


def _compiled(pattern: str, key: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise UserError(f"{key}: {pattern!r} is not a regular expression ({error})") from error
