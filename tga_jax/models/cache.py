"""Keys and values of past tokens, and attention over them.

Every layer has arrays of its own, and writes its new keys and values before it reads, so that a
decoding loop updates them in place: what is read before it is written, or
sliced out of a stack, XLA copies at every step.

Letters: B batch, T new tokens, S slots, H heads, K kv heads, G = H / K, C head width, L layers.
"""

from __future__ import annotations

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from tga_jax.models.layers import capped, where_it_divides
from tga_jax.models.visibility import Visibility


@flax.struct.dataclass
class LayerCache:
    """A layer's keys and values."""

    k: Array  # dtype[B, K, S, C]: a head's keys lie together, as its product reads them
    v: Array  # dtype[B, K, S, C]
    end: Array  # int32[]: slots used, the same for every row

    def add(self, k: Array, v: Array) -> LayerCache:
        """The cache with new keys and values, dtype[B, T, K, C], in the next slots."""
        put = jax.lax.dynamic_update_slice_in_dim
        return LayerCache(
            _shard(put(self.k, jnp.swapaxes(k, 1, 2), self.end, axis=2)),
            _shard(put(self.v, jnp.swapaxes(v, 1, 2), self.end, axis=2)),
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
            _shard_rows(jnp.pad(x, ((0, 0), (0, more)))) for x in (positions, segments)
        )
        end = jnp.int32(length)
        caches = tuple(LayerCache(_shard(k[i]), _shard(v[i]), end) for i in range(layers))
        return cls(caches, positions, segments)

    def add(self, positions: Array, segments: Array) -> KVCache:
        """The cache with the places of new tokens, int32[B, T]; each layer adds its own keys."""
        put, end = jax.lax.dynamic_update_slice_in_dim, self.layers[0].end
        return KVCache(
            self.layers,
            _shard_rows(put(self.positions, positions.astype(jnp.int32), end, axis=1)),
            _shard_rows(put(self.segments, segments.astype(jnp.int32), end, axis=1)),
        )

    def with_layers(self, layers: list[LayerCache]) -> KVCache:
        """The cache with these keys and values in place of its own."""
        return KVCache(tuple(layers), self.positions, self.segments)


def _shard(x: Array) -> Array:
    """Keys or values dtype[B, K, S, C] sharded as the heads of the queries are."""
    heads = where_it_divides("kv_heads", x.shape[1])
    return nn.with_logical_constraint(x, ("batch", heads, "length", None))


def _shard_rows(x: Array) -> Array:
    """Positions or segments int32[B, S] sharded by rows, as a batch is."""
    return nn.with_logical_constraint(x, ("batch", "length"))


def attend_to_cache(
    q: Float[Array, "batch new heads channels"],
    cache: LayerCache,
    visible: Visibility,
    *,
    softcap: float | None = None,
) -> Float[Array, "batch new heads channels"]:
    """Softmax attention of new tokens over a cache that holds them too.

    Args:
        q: float[B, T, H, C].
        cache: a layer's, with the new tokens.
        visible: who of the new tokens sees which slot.
        softcap: scaled scores become softcap * tanh(score / softcap); None: they stay.

    Returns:
        float[B, T, H, C], in q's dtype.
    """
    batch, new, heads, width = q.shape
    q = q.reshape(batch, new, cache.k.shape[1], -1, width)
    scores = jnp.einsum("btkgc,bksc->bkgts", q, cache.k, preferred_element_type=jnp.float32)
    # Finite, so that a row that sees nothing (padding) gives numbers and not NaN.
    seen = visible.mask()[:, None, None]
    scores = capped(scores * width**-0.5, softcap)
    scores = jnp.where(seen, scores, jnp.finfo(jnp.float32).min)
    weights = jax.nn.softmax(scores, axis=-1).astype(cache.v.dtype)
    out = jnp.einsum("bkgts,bksc->btkgc", weights, cache.v)
    return out.reshape(batch, new, heads, width)
