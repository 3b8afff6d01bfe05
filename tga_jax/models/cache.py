"""Keys and values of past tokens, and attention over them.

Layers only read the cache; the new keys and values of all layers go into it in one place at the
end, so that a decoding loop updates it without a copy.

Letters: B batch, T new tokens, S slots, H heads, K kv heads, G = H / K, C head width, L layers.
"""

from __future__ import annotations

import flax
import jax
import jax.numpy as jnp

from tga_jax.models.visibility import Visibility

Array = jax.Array


@flax.struct.dataclass
class KVCache:
    """Keys and values of past tokens; a slot's segment is 0 until it is filled."""

    k: Array  # dtype[L, B, K, S, C]: a head's keys lie together, as its product reads them
    v: Array  # dtype[L, B, K, S, C]
    positions: Array  # int32[B, S]
    segments: Array  # int32[B, S]
    filled: Array  # int32[]: slots used, the same for every row

    @classmethod
    def of(cls, k: Array, v: Array, positions: Array, segments: Array, *, slots: int) -> KVCache:
        """The cache of a first pass, with room for `slots` tokens, those of the pass included.

        k, v: dtype[L, B, T, K, C]; positions, segments: int32[B, T].
        """
        more = slots - k.shape[2]
        k, v = (jnp.pad(jnp.swapaxes(x, 2, 3), [(0, 0)] * 3 + [(0, more), (0, 0)]) for x in (k, v))
        positions, segments = (jnp.pad(x, ((0, 0), (0, more))) for x in (positions, segments))
        return cls(k, v, positions, segments, jnp.int32(slots - more))

    def add(self, k: Array, v: Array, positions: Array, segments: Array) -> KVCache:
        """The cache with the new tokens behind those that it holds; arguments as in `of`."""
        here, put = self.filled, jax.lax.dynamic_update_slice_in_dim
        return KVCache(
            put(self.k, jnp.swapaxes(k, 2, 3), here, axis=3),
            put(self.v, jnp.swapaxes(v, 2, 3), here, axis=3),
            put(self.positions, positions.astype(jnp.int32), here, axis=1),
            put(self.segments, segments.astype(jnp.int32), here, axis=1),
            here + k.shape[2],
        )

    def visible(self, positions: Array, segments: Array, *, window: int | None) -> Visibility:
        """Who of the new tokens sees which of the slots and, behind them, the new tokens."""
        return Visibility(
            positions,
            jnp.concatenate([self.positions, positions], axis=1),
            segments,
            jnp.concatenate([self.segments, segments], axis=1),
            True,
            window,
        )


def attend_to_past(
    q: Array, k: Array, v: Array, past: tuple[Array, Array], visible: Visibility
) -> Array:
    """Softmax attention of new tokens over a layer's cache and over themselves.

    Args:
        q: float[B, T, H, C].
        k: float[B, T, K, C], of the new tokens.
        v: float[B, T, K, C].
        past: cached keys and values, float[B, K, S, C] each.
        visible: as `KVCache.visible` makes it.

    Returns:
        float[B, T, H, C], in q's dtype.
    """
    batch, new, heads, width = q.shape
    slots = past[0].shape[2]
    q = q.reshape(batch, new, k.shape[2], -1, width)
    f32 = jnp.float32
    scores = jnp.concatenate(
        [
            jnp.einsum("btkgc,bksc->bkgts", q, past[0], preferred_element_type=f32),
            jnp.einsum("btkgc,bskc->bkgts", q, k, preferred_element_type=f32),
        ],
        axis=-1,
    )
    # Finite, so that a row that sees nothing (padding) gives numbers and not NaN.
    seen = visible.mask()[:, None, None]
    scores = jnp.where(seen, scores * width**-0.5, jnp.finfo(f32).min)
    weights = jax.nn.softmax(scores, axis=-1).astype(v.dtype)
    out = jnp.einsum("bkgts,bksc->btkgc", weights[..., :slots], past[1])
    out += jnp.einsum("bkgts,bskc->btkgc", weights[..., slots:], v)
    return out.reshape(batch, new, heads, width)
