"""transformers as where torch isn't installed, because it imports torch wherever it finds it."""

from __future__ import annotations

import sys


def leave_torch_out() -> None:
    """Have transformers take torch for absent, until this process ends.

    It reads tokenizers and config.json here, which needs no torch, and importing torch takes 3 to 7
    seconds. Nothing changes where one of the two has been imported already.
    """
    if "torch" in sys.modules or "transformers" in sys.modules:
        return
    sys.modules["torch"] = None  # type: ignore[assignment]
    try:
        import transformers

        transformers.utils.is_torch_available()  # whose first answer is kept
    finally:
        del sys.modules["torch"]
