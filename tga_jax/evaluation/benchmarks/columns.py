"""Which column of a file is which, by an option or by the names that published files use."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tga_jax.errors import UserError
from tga_jax.evaluation.benchmarks.read_table import id_of

# Values of a column that says whether a request is harmful.
HARMFUL = {
    "safe": False, "benign": False, "harmless": False, "0": False, "false": False, "no": False,
    "unsafe": True, "harmful": True, "toxic": True, "1": True, "true": True, "yes": True,
}  # fmt: skip


def column(
    names: Sequence[str],
    wanted: str,
    usual: Sequence[str],
    *,
    key: str = "",
    path: Path | None = None,
) -> str | None:
    """The column that was asked for, or the first of the usual ones that is there, or None.

    Args:
        names: the file's columns.
        wanted: what the user named; "": nothing.
        usual: names that published files use.
        key: the option or config key of `wanted`, for the message.
        path: the file, for the message.

    Raises:
        UserError: the file has no column `wanted`; the message lists those that it has. Or it has
            no rows, and so no columns.
    """
    if wanted and not names:
        raise UserError(f"{path}: the file has no rows below its header")
    if not wanted:
        return next((name for name in usual if name in names), None)
    if wanted not in names:
        raise UserError(
            f"{path}: {key}={wanted!r}: there is no such column; the file has {known(names)}"
        )
    return wanted


def known(names: Sequence[str]) -> str:
    """The columns of a file, for a message; long lists are cut."""
    return ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")


def harmful_of(value: Any, *, key: str, where: str) -> bool | None:
    """What a cell says of a request: harmful, harmless, or nothing (None).

    Raises:
        UserError: another value than those of `HARMFUL`.
    """
    if value is None or value == "":
        return None
    word = str(value).strip().lower().removesuffix(".0")
    if word not in HARMFUL:
        raise UserError(f'{where}: "{key}" must be one of {", ".join(HARMFUL)}, got {value!r:.40}')
    return HARMFUL[word]


@dataclasses.dataclass(frozen=True)
class HarmfulColumn:
    """Where a file says whether a request is harmful.

    Attributes:
        name: the column; None: there is none.
        default: of rows that don't say it.
    """

    name: str | None
    default: bool | None

    @classmethod
    def of(
        cls, names: Sequence[str], option: str, usual: Sequence[str], *, path: Path
    ) -> HarmfulColumn:
        """From the option `harmful`: "yes", "no", or a column; and the usual column names."""
        if option in ("yes", "no"):
            return cls(column(names, "", usual), option == "yes")
        return cls(
            column(names, option, usual, key="harmful (yes, no or a column)", path=path), None
        )

    def of_row(self, row: Mapping[str, Any], *, where: str) -> bool | None:
        """What a row says, or the default."""
        said = harmful_of(row.get(self.name), key=self.name, where=where) if self.name else None
        return self.default if said is None else said


def id_or(row: Mapping[str, Any], name: str | None, number: int, *, where: str) -> int | str:
    """A row's id; its number where there is no such column, or nothing in it."""
    if name is None or row.get(name) in (None, ""):
        return number
    return id_of(row, name, where=where)
