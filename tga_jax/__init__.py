"""Text-Guided Alignment of large vision-language models in JAX/Flax."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tga_jax.analysis.loaded import LoadedModel

__version__ = "0.1.0"


def load(
    checkpoint: str | Path,
    *,
    dtype: str = "float32",
    settings: Mapping[str, Any] | None = None,
) -> LoadedModel:
    """A LLaVA checkpoint for a notebook, ready to be asked; docs/python.md.

    Args:
        checkpoint: a Hugging Face folder, such as a run's export/, or a hub id.
        dtype: of parameters and of computing, "float32" or "bfloat16".
        settings: configuration keys that differ from the defaults, such as
            {"prompt.template": "vicuna_v1", "generate.batch_size": 32}; docs/config.md has all.

    Raises:
        UserError: there is no such checkpoint, or no such key.
    """
    from tga_jax.analysis.loaded import load_model  # JAX is imported when it is needed

    return load_model(checkpoint, dtype=dtype, settings=settings or {})
