"""Rotary position embeddings (arXiv 2104.09864) and the scalings of their frequencies.

Letters: B batch, T length, H heads, C head width.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from tga_jax.models.config import RopeScaling


def frequencies(
    head_dim: int, theta: float, scaling: RopeScaling | None
) -> Float[np.ndarray, " pairs"]:
    """float32[C / 2]: radians a position, per pair of channels.

    Of "dynamic" scaling: those of texts up to the original length.
    """
    exponents = np.arange(0, head_dim, 2, dtype=np.float32) / head_dim
    freq = (1.0 / (np.float32(theta) ** exponents)).astype(np.float32)
    if scaling is None or scaling.kind == "dynamic":
        return freq
    if scaling.kind == "linear":
        return freq / np.float32(scaling.factor)
    if scaling.kind == "llama3":
        return _llama3(freq, scaling)
    if scaling.kind == "yarn":
        return _yarn(freq, theta, scaling)
    raise ValueError(f"unknown rope scaling {scaling.kind!r}")


def _llama3(freq: np.ndarray, scaling: RopeScaling) -> np.ndarray:
    """Slow channels are stretched, fast ones kept, those between blended (Llama 3.1)."""
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    rotations = scaling.original_length * freq / (2 * np.pi)  # within the original length
    blend = np.clip((rotations - low) / (high - low), 0.0, 1.0)
    return ((1 - blend) * freq / scaling.factor + blend * freq).astype(np.float32)


def _yarn(freq: np.ndarray, theta: float, scaling: RopeScaling) -> np.ndarray:
    """The same with a blend that is linear in the channel (arXiv 2309.00071, section 3.2)."""
    width = 2 * len(freq)

    def channel(rotations: float) -> float:
        """The pair that turns so often within the original length."""
        turns = scaling.original_length / (rotations * 2 * math.pi)
        return width * math.log(turns) / (2 * math.log(theta))

    low, high = channel(scaling.beta_fast), channel(scaling.beta_slow)
    if scaling.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, width - 1)
    blend = np.clip((np.arange(len(freq)) - low) / ((high - low) or 0.001), 0.0, 1.0)
    return (freq * (1 - blend) + freq / scaling.factor * blend).astype(np.float32)


def magnitude(scaling: RopeScaling | None) -> float:
    """What cosines and sines are multiplied by: YaRN's temperature of the attention, 1 without."""
    if scaling is None or scaling.kind != "yarn":
        return 1.0
    if scaling.attention_factor is not None:
        return scaling.attention_factor
    return 0.1 * math.log(scaling.factor) + 1.0 if scaling.factor > 1 else 1.0


def stretched(
    freq: Float[np.ndarray, " pairs"],
    scaling: RopeScaling,
    positions: Int[Array, "batch length"],
    segments: Int[Array, "batch length"],
) -> Float[Array, "batch length 1 pairs"]:
    """ "dynamic" scaling: the frequencies of each token's own text, by how long that is.

    So a text has the same ones whatever it is packed or batched with.
    """
    last = jax.vmap(lambda at, of: jax.ops.segment_max(at, of, at.shape[0] + 1)[of])
    length = jnp.maximum(last(positions, segments) + 1, scaling.original_length)
    base = scaling.factor * length / scaling.original_length - (scaling.factor - 1)
    # theta grows by base ** (C / (C - 2)); a pair's frequency is theta ** -(2 pair / C).
    exponents = np.arange(len(freq), dtype=np.float32) / (len(freq) - 1)
    return jnp.asarray(freq) * base.astype(jnp.float32)[..., None, None] ** -exponents


def rotations(
    positions: Int[Array, "batch length"],
    segments: Int[Array, "batch length"],
    *,
    head_dim: int,
    theta: float,
    scaling: RopeScaling | None,
) -> tuple[Float[Array, "batch length 1 pairs"], Float[Array, "batch length 1 pairs"]]:
    """Cosines and sines of tokens, float32[B, T, 1, C / 2] each.

    Args:
        positions: int32[B, T].
        segments: int32[B, T], at most T; which text of the row a token is of.
        head_dim: C.
        theta: the base of the frequencies.
        scaling: how they are stretched.
    """
    freq: Array | np.ndarray = frequencies(head_dim, theta, scaling)
    if scaling is not None and scaling.kind == "dynamic":
        freq = stretched(np.asarray(freq), scaling, positions, segments)
    angles = positions[..., None, None].astype(jnp.float32) * freq
    cos, sin, size = jnp.cos(angles), jnp.sin(angles), magnitude(scaling)
    return (cos, sin) if size == 1.0 else (cos * size, sin * size)


def rotate(
    x: Float[Array, "batch length heads channels"],
    cos: Float[Array, "batch length 1 pairs"],
    sin: Float[Array, "batch length 1 pairs"],
) -> Float[Array, "batch length heads channels"]:
    """float[B, T, H, C] rotated in float32; channel i is paired with i + C / 2."""
    a, b = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1).astype(x.dtype)
