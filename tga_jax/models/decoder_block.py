"""One block of a decoder: attention and gated MLP, and the span means of its output.

Letters: B batch, T length, D width, H heads, K kv heads, C head width, N pooled spans.
"""

from __future__ import annotations

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Bool, Float

from tga_jax.models import rope
from tga_jax.models.attention import attend
from tga_jax.models.cache import LayerCache, attend_to_cache
from tga_jax.models.config import Compute, DecoderConfig
from tga_jax.models.layers import Linear, RMSNorm, activation, residual
from tga_jax.models.visibility import Visibility

Rotation = tuple[Array, Array]  # cosines and sines of the positions


class DecoderBlock(nn.Module):
    """Attention and gated MLP, normed before and maybe after; emits its output's span means."""

    config: DecoderConfig
    compute: Compute
    keep: bool = False  # also emit keys and values

    @nn.compact
    def __call__(
        self,
        x: Array,
        rotation: tuple[Rotation, Rotation | None],
        visible: Visibility,
        pool: Array | None = None,
        windowed: Array | None = None,
        shift: Array | None = None,
        past: LayerCache | None = None,
    ) -> tuple[Array, tuple[Array | None, tuple[Array, Array] | LayerCache | None]]:
        """One block.

        Args:
            x: dtype[B, T, D], the residual stream.
            rotation: of the positions; the second in a block with the window, if there is one.
            visible: who sees whom.
            pool: bool[B, N, T], the spans to average over, or None.
            windowed: bool[], whether this block has the window; None: as all others.
            shift: float[D], added to the block's output at every position, or None.
            past: this layer's cache, or None.

        Returns:
            the new residual stream, and (float32[B, N, D] or None, the cache with x's tokens;
            without one their keys and values, dtype[B, T, K, C] each, or None).
        """
        if windowed is not None:
            visible = dataclasses.replace(visible, windowed=windowed)
        y, kept = self._attention(
            self._norm("norm1")(x), _chosen(rotation, windowed), visible, past
        )
        x = x + (self._norm("post_norm1")(y) if self.config.post_norms else y)
        y = self._mlp(self._norm("norm2")(x))
        x = x + (self._norm("post_norm2")(y) if self.config.post_norms else y)
        x = residual(x if shift is None else x + shift.astype(x.dtype))
        return x, (None if pool is None else span_means(x, pool), kept if self.keep else None)

    def _norm(self, name: str) -> RMSNorm:
        return rms_norm(self.config, self.compute, name)

    def _linear(self, features: int, axes: tuple[str, str], bias: bool, name: str) -> Linear:
        lora = self.config.lora
        lora = lora if lora is not None and name in lora.targets else None
        quantize = self.config.quantize
        return Linear(features, axes, bias, self.compute.dtype, lora, quantize, name=name)

    def _attention(
        self,
        x: Array,
        rotation: Rotation,
        visible: Visibility,
        past: LayerCache | None,
    ) -> tuple[Array, tuple[Array, Array] | LayerCache]:
        cfg = self.config
        batch, length, width = x.shape
        q_width, kv_width = cfg.heads * cfg.head_dim, cfg.kv_heads * cfg.head_dim
        q = self._linear(q_width, ("embed", "heads"), cfg.qkv_bias, "q")(x)
        k = self._linear(kv_width, ("embed", "kv_heads"), cfg.qkv_bias, "k")(x)
        v = self._linear(kv_width, ("embed", "kv_heads"), cfg.qkv_bias, "v")(x)
        q = q.reshape(batch, length, cfg.heads, cfg.head_dim)
        k = k.reshape(batch, length, cfg.kv_heads, cfg.head_dim)
        if cfg.qk_norm:
            q, k = self._norm("q_norm")(q), self._norm("k_norm")(k)
        if cfg.query_scale != 1:
            q = (q * cfg.query_scale).astype(q.dtype)
        q, k = rope.rotate(q, *rotation), rope.rotate(k, *rotation)
        v = v.reshape(batch, length, cfg.kv_heads, cfg.head_dim)
        kept: tuple[Array, Array] | LayerCache
        if past is None:
            kept = k, v
            q, k, v = (checkpoint_name(a, "qkv") for a in (q, k, v))
            backend = self.compute.attention
            y = attend(q, k, v, visible, backend=backend, softcap=cfg.attention_softcap)
            y = checkpoint_name(y, "attention")
        else:
            kept = past.add(k, v)
            y = attend_to_cache(q, kept, visible, softcap=cfg.attention_softcap)
        y = y.reshape(batch, length, q_width)
        return self._linear(width, ("heads", "embed"), cfg.out_bias, "o")(y), kept

    def _mlp(self, x: Array) -> Array:
        cfg = self.config
        gate = self._linear(cfg.ffn, ("embed", "ffn"), cfg.mlp_bias, "gate")(x)
        up = self._linear(cfg.ffn, ("embed", "ffn"), cfg.mlp_bias, "up")(x)
        y = nn.with_logical_constraint(
            activation(cfg.activation)(gate) * up, ("batch", "length", "ffn")
        )
        return self._linear(x.shape[-1], ("ffn", "embed"), cfg.mlp_bias, "down")(y)


def rms_norm(config: DecoderConfig, compute: Compute, name: str | None = None) -> RMSNorm:
    """The RMS norm of this configuration, as a block and the decoder have it."""
    return RMSNorm(config.norm_eps, compute.dtype, config.norm_offset, name=name)


def _chosen(rotation: tuple[Rotation, Rotation | None], windowed: Array | None) -> Rotation:
    every, of_windowed = rotation
    if of_windowed is None:
        return every
    if windowed is None:
        return of_windowed
    return jax.tree.map(lambda a, b: jnp.where(windowed, a, b), of_windowed, every)


def span_means(
    x: Float[Array, "batch length width"], spans: Bool[Array, "batch spans length"]
) -> Float[Array, "batch spans width"]:
    """Means of x over spans: dtype[B, T, D], bool[B, N, T] -> float32[B, N, D]; 0 if empty."""
    # What feeds a cosine is float32 also where devices round the products of float32.
    total = jnp.einsum(
        "bnt,btd->bnd",
        spans.astype(x.dtype),
        x,
        precision=jax.lax.Precision.HIGHEST,
        preferred_element_type=jnp.float32,
    )
    count = jnp.sum(spans, axis=-1, keepdims=True, dtype=jnp.float32)
    return total / jnp.maximum(count, 1.0)
