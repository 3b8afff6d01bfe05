"""Libraries as where torch isn't installed, because two import torch wherever they find it."""

from __future__ import annotations

import sys


def leave_torch_out() -> None:
    """Have transformers and tensorboardX take torch for absent, until this process ends.

    The one reads tokenizers and config.json here, the other writes scalars. Neither needs torch,
    which takes 3 to 7 seconds to import. Nothing changes where torch or transformers has been
    imported already.
    """
    if "torch" in sys.modules or "transformers" in sys.modules:
        return
    sys.modules["torch"] = None  # type: ignore[assignment]
    try:
        import tensorboardX  # noqa: F401 - it looks for torch while it is imported
        import transformers

        transformers.utils.is_torch_available()  # whose first answer is kept
    finally:
        del sys.modules["torch"]
