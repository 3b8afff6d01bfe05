"""Keys and values of past tokens, and attention over them.

Every layer has arrays of its own, and writes its new keys and values before it reads, so that a
decoding loop updates them in place: what is read before it is written, or cut out of a stack, XLA
copies at every step.

Letters: B batch, T new tokens, S slots, H heads, K kv heads, G = H / K, C head width, L layers.
"""

from __future__ import annotations

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp

from tga_jax.models.layers import where_it_divides
from tga_jax.models.visibility import Visibility

Array = jax.Array


@flax.struct.dataclass
class LayerCache:
    """A layer's keys and values."""

    k: Array  # dtype[B, K, S, C]: a head's keys lie together, as its product reads them
    v: Array  # dtype[B, K, S, C]
    end: Array  # int32[]: slots used, the same for every row

    def add(self, k: Array, v: Array) -> LayerCache:
        """With new tokens, dtype[B, T, K, C], in the next slots."""
        put = jax.lax.dynamic_update_slice_in_dim
        return LayerCache(
            _cut(put(self.k, jnp.swapaxes(k, 1, 2), self.end, axis=2)),
            _cut(put(self.v, jnp.swapaxes(v, 1, 2), self.end, axis=2)),
            self.end + k.shape[1],
        )


@flax.struct.dataclass
class KVCache:
    """The caches of all layers; a slot's segment is 0 until it is filled."""

    layers: tuple[LayerCache, ...]
    positions: Array  # int32[B, S]
    segments: Array  # int32[B, S]

    @classmethod
    def of(cls, k: Array, v: Array, positions: Array, segments: Array, *, slots: int) -> KVCache:
        """The cache of a first pass, with room for `slots` tokens, those of the pass included.

        k, v: dtype[L, B, T, K, C]; positions, segments: int32[B, T].
        """
        layers, _, length = k.shape[:3]
        more = slots - length
        k, v = (jnp.pad(jnp.swapaxes(x, 2, 3), [(0, 0)] * 3 + [(0, more), (0, 0)]) for x in (k, v))
        positions, segments = (
            _cut_rows(jnp.pad(x, ((0, 0), (0, more)))) for x in (positions, segments)
        )
        end = jnp.int32(length)
        caches = tuple(LayerCache(_cut(k[i]), _cut(v[i]), end) for i in range(layers))
        return cls(caches, positions, segments)

    def add(self, positions: Array, segments: Array) -> KVCache:
        """With the places of new tokens, int32[B, T]; the layers add keys and values themselves."""
        put, end = jax.lax.dynamic_update_slice_in_dim, self.layers[0].end
        return KVCache(
            self.layers,
            _cut_rows(put(self.positions, positions.astype(jnp.int32), end, axis=1)),
            _cut_rows(put(self.segments, segments.astype(jnp.int32), end, axis=1)),
        )

    def with_layers(self, layers: list[LayerCache]) -> KVCache:
        """With these keys and values."""
        return KVCache(tuple(layers), self.positions, self.segments)


def _cut(x: Array) -> Array:
    """dtype[B, K, S, C] as it lies on the mesh: heads go with those of the queries."""
    heads = where_it_divides("kv_heads", x.shape[1])
    return nn.with_logical_constraint(x, ("batch", heads, "length", None))


def _cut_rows(x: Array) -> Array:
    """int32[B, S] as it lies on the mesh."""
    return nn.with_logical_constraint(x, ("batch", "length"))


def attend_to_cache(q: Array, cache: LayerCache, visible: Visibility) -> Array:
    """Softmax attention of new tokens over a cache that holds them too.

    Args:
        q: float[B, T, H, C].
        cache: a layer's, with the new tokens.
        visible: who of the new tokens sees which slot.

    Returns:
        float[B, T, H, C], in q's dtype.
    """
    batch, new, heads, width = q.shape
    q = q.reshape(batch, new, cache.k.shape[1], -1, width)
    scores = jnp.einsum("btkgc,bksc->bkgts", q, cache.k, preferred_element_type=jnp.float32)
    # Finite, so that a row that sees nothing (padding) gives numbers and not NaN.
    seen = visible.mask()[:, None, None]
    scores = jnp.where(seen, scores * width**-0.5, jnp.finfo(jnp.float32).min)
    weights = jax.nn.softmax(scores, axis=-1).astype(cache.v.dtype)
    out = jnp.einsum("bkgts,bksc->btkgc", weights, cache.v)
    return out.reshape(batch, new, heads, width)
