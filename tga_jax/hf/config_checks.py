"""What a number in config.json must be, before something is divided by it or made as large."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tga_jax.errors import UserError

WIDTHS = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
MAX_SIZE = 100_000_000  # no model has a shape beyond


def check_vision(full: Any, file: Path, prefix: str) -> None:
    """Refuses a vision tower whose sizes are none.

    Args:
        full: transformers' config object.
        file: is named in errors.
        prefix: of the keys in the file.
    """
    _check_sizes(full, ("image_size", "patch_size", *WIDTHS), file, prefix)
    _check_eps(full, "layer_norm_eps", file, prefix)
    if full.patch_size > full.image_size:
        raise UserError(
            f"{file}: {prefix}patch_size {full.patch_size} is more than image_size"
            f" {full.image_size}"
        )


def check_decoder(full: Any, file: Path, prefix: str) -> None:
    """Refuses a language model whose sizes are none; arguments as above."""
    _check_sizes(full, ("vocab_size", "num_key_value_heads", *WIDTHS), file, prefix)
    _check_eps(full, "rms_norm_eps", file, prefix)
    if full.num_attention_heads % full.num_key_value_heads:
        raise UserError(
            f"{file}: {prefix}num_attention_heads {full.num_attention_heads} is no multiple of"
            f" num_key_value_heads {full.num_key_value_heads}"
        )


def _check_sizes(full: Any, keys: Iterable[str], file: Path, prefix: str) -> None:
    for key in keys:
        value = getattr(full, key)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= MAX_SIZE:
            raise UserError(f"{file}: {prefix}{key} {value!r:.40} must be a whole number above 0")
    if full.hidden_size % full.num_attention_heads and not getattr(full, "head_dim", None):
        raise UserError(
            f"{file}: {prefix}hidden_size {full.hidden_size} is no multiple of"
            f" num_attention_heads {full.num_attention_heads}"
        )


def _check_eps(full: Any, key: str, file: Path, prefix: str) -> None:
    value = getattr(full, key)
    if not isinstance(value, int | float) or not 0 <= value < 1:
        raise UserError(f"{file}: {prefix}{key} {value!r:.40} must be a number from 0 to 1")
