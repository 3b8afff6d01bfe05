"""Rotary position embeddings (arXiv 2104.09864) with the scalings of Llama 2 and 3.

Letters: B batch, T length, H heads, C head width.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from tga_jax.models.config import RopeScaling


def frequencies(
    head_dim: int, theta: float, scaling: RopeScaling | None
) -> Float[np.ndarray, " pairs"]:
    """float32[C / 2]: radians a position, per pair of channels."""
    exponents = np.arange(0, head_dim, 2, dtype=np.float32) / head_dim
    freq = (1.0 / (np.float32(theta) ** exponents)).astype(np.float32)
    if scaling is None:
        return freq
    if scaling.kind == "linear":
        return freq / np.float32(scaling.factor)
    if scaling.kind == "llama3":
        return _llama3(freq, scaling)
    raise ValueError(f"unknown rope scaling {scaling.kind!r}")


def _llama3(freq: np.ndarray, scaling: RopeScaling) -> np.ndarray:
    """Slow channels are stretched, fast ones kept, those between blended (Llama 3.1)."""
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    rotations = scaling.original_length * freq / (2 * np.pi)  # within the original length
    blend = np.clip((rotations - low) / (high - low), 0.0, 1.0)
    return ((1 - blend) * freq / scaling.factor + blend * freq).astype(np.float32)


def rotation(
    positions: Int[Array, "batch length"], freq: Float[np.ndarray, " pairs"]
) -> tuple[Float[Array, "batch length 1 pairs"], Float[Array, "batch length 1 pairs"]]:
    """int32[B, T] -> cosines and sines, float32[B, T, 1, C / 2] each."""
    angles = positions[..., None, None].astype(jnp.float32) * freq
    return jnp.cos(angles), jnp.sin(angles)


def rotate(
    x: Float[Array, "batch length heads channels"],
    cos: Float[Array, "batch length 1 pairs"],
    sin: Float[Array, "batch length 1 pairs"],
) -> Float[Array, "batch length heads channels"]:
    """float[B, T, H, C] rotated in float32; channel i is paired with i + C / 2."""
    a, b = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1).astype(x.dtype)
