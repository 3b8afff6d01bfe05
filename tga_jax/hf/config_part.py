"""A part of a Hugging Face configuration, with what an error about it has to name."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tga_jax.errors import UserError

WIDTHS = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
MAX_SIZE = 100_000_000  # no model has a shape beyond


@dataclasses.dataclass(frozen=True)
class Part:
    """One of transformers' configuration objects, its defaults filled in.

    Attributes:
        values: the object.
        file: the config.json that it was read from.
        prefix: of its keys in that file, such as "text_config.".
    """

    values: Any
    file: Path
    prefix: str = ""

    def one_of(self, key: str, allowed: Iterable[Any]) -> Any:
        """The value of a key that must be one of a few.

        Raises:
            UserError: it is none of `allowed`.
        """
        value = getattr(self.values, key)
        if value not in allowed:
            choice = ", ".join(str(a) for a in allowed)
            raise self.error(f"{key} {value!r} is not supported; one of {choice} is")
        return value

    def check_sizes(self, *keys: str) -> None:
        """Refuse what is no size, before something is divided by it or made as large.

        Raises:
            UserError: one of the keys is no whole number above 0, or the width does not divide
                into heads.
        """
        values = self.values
        for key in (*keys, *WIDTHS):
            value = getattr(values, key)
            if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= MAX_SIZE:
                raise self.error(f"{key} {value!r:.40} must be a whole number above 0")
        if values.hidden_size % values.num_attention_heads and not getattr(
            values, "head_dim", None
        ):
            raise self.error(
                f"hidden_size {values.hidden_size} is no multiple of num_attention_heads"
                f" {values.num_attention_heads}"
            )

    def check_eps(self, key: str) -> None:
        """Refuse what is no small number, as norms add one."""
        value = getattr(self.values, key)
        if not isinstance(value, int | float) or not 0 <= value < 1:
            raise self.error(f"{key} {value!r:.40} must be a number from 0 to 1")

    def error(self, text: str) -> UserError:
        """An error about a key, `text` beginning with its name."""
        return UserError(f"{self.file}: {self.prefix}{text}")
