"""How many images of a job may be unreadable before it stops."""

from __future__ import annotations

from collections.abc import Callable

from tga_jax.data.row_check import allowed_bad
from tga_jax.errors import UserError


class Budget:
    """config.data.max_bad_fraction of a number of images, rounded down."""

    def __init__(self, max_bad_fraction: float, images: int, *, say: Callable[[str], None]) -> None:
        """Takes the share that may be unreadable, the number of images, and who shows a line."""
        self._say = say
        self._refused: set[int] = set()
        self.images = images
        self.allowed = allowed_bad(max_bad_fraction, images)

    def refuse(self, number: int, error: UserError) -> None:
        """Counts an image that cannot be read and is skipped.

        Raises:
            UserError: `error`, where it is one too many.
        """
        self._refused.add(number)
        if len(self._refused) > self.allowed:
            raise error
        self._say(f"skipped: {error}")

    def check(self, unreadable: int) -> None:
        """Counts those of a killed run and of other hosts too.

        Raises:
            UserError: they are too many.
        """
        if unreadable > self.allowed:
            raise UserError(
                f"{unreadable} of {self.images} images cannot be read, "
                f"config.data.max_bad_fraction allows {self.allowed}"
            )
