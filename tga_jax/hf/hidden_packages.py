"""Libraries as where a package isn't installed that they would import wherever they find it."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def hidden(package: str) -> Iterator[None]:
    """Who imports the package inside, or asks whether it is there, finds none."""
    missing = object()
    before: Any = sys.modules.get(package, missing)
    sys.modules[package] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        if before is missing:
            del sys.modules[package]
        else:
            sys.modules[package] = before


def leave_torch_out() -> None:
    """Have transformers and tensorboardX take torch for absent, until this process ends.

    The one reads tokenizers and config.json here, the other writes scalars. Neither needs torch,
    which takes 3 to 7 seconds to import. Nothing changes where torch or transformers has been
    imported already.
    """
    if "torch" in sys.modules or "transformers" in sys.modules:
        return
    with hidden("torch"):
        import tensorboardX  # noqa: F401 - it looks for torch while it is imported
        import transformers

        transformers.utils.is_torch_available()  # whose first answer is kept
