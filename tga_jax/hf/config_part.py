"""A part of a Hugging Face configuration, with what an error about it has to name."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tga_jax.errors import UserError


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
        """The key's value.

        Raises:
            UserError: it is none of `allowed`.
        """
        value = getattr(self.values, key)
        if value not in allowed:
            choice = ", ".join(str(a) for a in allowed)
            raise self.error(f"{key} {value!r} is not supported; one of {choice} is")
        return value

    def error(self, text: str) -> UserError:
        """An error about a key, `text` beginning with its name."""
        return UserError(f"{self.file}: {self.prefix}{text}")
