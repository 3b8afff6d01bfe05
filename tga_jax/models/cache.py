"""Keys and values of past tokens, and attention over them.

The first columns of a cache are for new tokens, the others hold the first pass. All rows write a
new token into the same column, and these columns are used in turn, so that rows may begin at
different times: a row sees the columns that have its segment.

Every layer has arrays of its own, and writes its new keys and values before it reads, so that a
decoding loop updates them in place: what is read before it is written, or
sliced out of a stack, XLA copies at every step.

Letters: B batch, T new tokens, S columns, H heads, K kv heads, G = H / K, C head width, L layers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

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
    next: Array  # int32[]: the column of the next token, the same for every row

    def add(self, k: Array, v: Array) -> LayerCache:
        """The cache with a token's keys and values, dtype[B, 1, K, C], in the next column."""
        put = jax.lax.dynamic_update_slice_in_dim
        return LayerCache(
            _shard(put(self.k, jnp.swapaxes(k, 1, 2), self.next, axis=2)),
            _shard(put(self.v, jnp.swapaxes(v, 1, 2), self.next, axis=2)),
            self.next,
        )


@flax.struct.dataclass
class KVCache:
    """The caches of all layers; a column's segment is 0 until it is filled."""

    layers: tuple[LayerCache, ...]
    positions: Array  # int32[B, S]
    segments: Array  # int32[B, S]
    room: int = flax.struct.field(pytree_node=False, default=0)  # the first columns, for new tokens

    @classmethod
    def of(cls, k: Array, v: Array, positions: Array, segments: Array, *, room: int) -> KVCache:
        """The cache of a first pass, with room for so many new tokens before they are overwritten.

        k, v: dtype[L, B, T, K, C]; positions, segments: int32[B, T].
        """
        k, v = (_pad(jnp.swapaxes(x, 2, 3), 3, before=room) for x in (k, v))
        positions, segments = (_pad(x, 1, before=room) for x in (positions, segments))
        layers = tuple(LayerCache(k[i], v[i], jnp.int32(0)) for i in range(len(k)))
        return cls(layers, positions, segments, room).sharded()

    def add(self, positions: Array, segments: Array) -> KVCache:
        """The cache with a new token's places, int32[B, 1]; each layer adds its own keys."""
        put, at = jax.lax.dynamic_update_slice_in_dim, self.layers[0].next
        return dataclasses.replace(
            self,
            positions=_shard_rows(put(self.positions, positions.astype(jnp.int32), at, axis=1)),
            segments=_shard_rows(put(self.segments, segments.astype(jnp.int32), at, axis=1)),
        )

    def with_layers(self, layers: Sequence[LayerCache]) -> KVCache:
        """The cache with a new token in its layers, which the token after it follows."""
        after = (layers[0].next + 1) % self.room
        return dataclasses.replace(
            self, layers=tuple(dataclasses.replace(layer, next=after) for layer in layers)
        )

    def longer(self, columns: int) -> KVCache:
        """The cache with so many more columns, empty, behind the others."""
        layers = (
            dataclasses.replace(
                layer, k=_pad(layer.k, 2, after=columns), v=_pad(layer.v, 2, after=columns)
            )
            for layer in self.layers
        )
        return dataclasses.replace(
            self,
            layers=tuple(layers),
            positions=_pad(self.positions, 1, after=columns),
            segments=_pad(self.segments, 1, after=columns),
        ).sharded()

    def sharded(self) -> KVCache:
        """The cache, cut over the mesh as all of its methods leave it."""
        layers = (
            dataclasses.replace(layer, k=_shard(layer.k), v=_shard(layer.v))
            for layer in self.layers
        )
        return dataclasses.replace(
            self,
            layers=tuple(layers),
            positions=_shard_rows(self.positions),
            segments=_shard_rows(self.segments),
        )


def _pad(x: Array, axis: int, *, before: int = 0, after: int = 0) -> Array:
    return jnp.pad(x, [(before, after) if i == axis else (0, 0) for i in range(x.ndim)])


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
