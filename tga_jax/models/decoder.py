"""One decoder for Llama, Mistral and Qwen2.

Letters: B batch, T length, D width, H heads, K kv heads, C head width, V vocabulary, L layers,
S cache slots, N pooled spans.
"""

from __future__ import annotations

import operator
from typing import cast

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Bool, Float, Int

from tga_jax.models import rope
from tga_jax.models.attention import attend
from tga_jax.models.cache import KVCache, LayerCache, attend_to_cache
from tga_jax.models.config import Compute, DecoderConfig
from tga_jax.models.layers import Linear, RMSNorm, param, residual, stack
from tga_jax.models.visibility import Visibility


@flax.struct.dataclass
class DecoderOutput:
    """hidden: dtype[B, T, D] after the last block, before the final norm.

    pooled: float32[L, B, N, D], the mean of each block's output over each span; None without
    spans. cache: the filled cache; None without one.
    """

    hidden: Array
    pooled: Array | None
    cache: KVCache | None


class DecoderBlock(nn.Module):
    """Pre-norm attention and gated MLP; emits its output's mean over spans."""

    config: DecoderConfig
    compute: Compute
    keep: bool = False  # also emit keys and values

    @nn.compact
    def __call__(
        self,
        x: Array,
        rotation: tuple[Array, Array],
        visible: Visibility,
        pool: Array | None = None,
        past: LayerCache | None = None,
    ) -> tuple[Array, tuple[Array | None, tuple[Array, Array] | LayerCache | None]]:
        """One block.

        Args:
            x: dtype[B, T, D], the residual stream.
            rotation: cosines and sines of the positions.
            visible: who sees whom.
            pool: bool[B, N, T], the spans to average over, or None.
            past: this layer's cache, or None.

        Returns:
            the new residual stream, and (float32[B, N, D] or None, the cache with x's tokens;
            without one their keys and values, dtype[B, T, K, C] each, or None).
        """
        cfg, dtype = self.config, self.compute.dtype
        y, kept = self._attention(
            RMSNorm(cfg.norm_eps, dtype, name="norm1")(x), rotation, visible, past
        )
        x = x + y
        y = RMSNorm(cfg.norm_eps, dtype, name="norm2")(x)
        x = x + self._mlp(y)
        x = residual(x)
        return x, (None if pool is None else span_means(x, pool), kept if self.keep else None)

    def _linear(self, features: int, axes: tuple[str, str], bias: bool, name: str) -> Linear:
        lora = self.config.lora
        lora = lora if lora is not None and name in lora.targets else None
        return Linear(features, axes, bias, self.compute.dtype, lora, name=name)

    def _attention(
        self,
        x: Array,
        rotation: tuple[Array, Array],
        visible: Visibility,
        past: LayerCache | None,
    ) -> tuple[Array, tuple[Array, Array] | LayerCache]:
        cfg = self.config
        batch, length, width = x.shape
        q_width, kv_width = cfg.heads * cfg.head_dim, cfg.kv_heads * cfg.head_dim
        q = self._linear(q_width, ("embed", "heads"), cfg.qkv_bias, "q")(x)
        k = self._linear(kv_width, ("embed", "kv_heads"), cfg.qkv_bias, "k")(x)
        v = self._linear(kv_width, ("embed", "kv_heads"), cfg.qkv_bias, "v")(x)
        q = rope.rotate(q.reshape(batch, length, cfg.heads, cfg.head_dim), *rotation)
        k = rope.rotate(k.reshape(batch, length, cfg.kv_heads, cfg.head_dim), *rotation)
        v = v.reshape(batch, length, cfg.kv_heads, cfg.head_dim)
        kept: tuple[Array, Array] | LayerCache
        if past is None:
            kept = k, v
            q, k, v = (checkpoint_name(a, "qkv") for a in (q, k, v))
            y = attend(q, k, v, visible, backend=self.compute.attention)
            y = checkpoint_name(y, "attention")
        else:
            kept = past.add(k, v)
            y = attend_to_cache(q, kept, visible)
        y = y.reshape(batch, length, q_width)
        return self._linear(width, ("heads", "embed"), cfg.out_bias, "o")(y), kept

    def _mlp(self, x: Array) -> Array:
        cfg = self.config
        gate = self._linear(cfg.ffn, ("embed", "ffn"), cfg.mlp_bias, "gate")(x)
        up = self._linear(cfg.ffn, ("embed", "ffn"), cfg.mlp_bias, "up")(x)
        y = nn.with_logical_constraint(jax.nn.silu(gate) * up, ("batch", "length", "ffn"))
        return self._linear(x.shape[-1], ("ffn", "embed"), cfg.mlp_bias, "down")(y)


class Decoder(nn.Module):
    """Token embeddings, blocks, final norm, head."""

    config: DecoderConfig
    compute: Compute = Compute()
    keep: bool = False  # return a cache

    def setup(self) -> None:
        cfg = self.config
        normal = nn.initializers.normal(0.02)
        self.table = param(self, "embed", normal, (cfg.vocab, cfg.width), ("vocab", "embed"))
        self.blocks = stack(
            DecoderBlock,
            layers=cfg.layers,
            remat=self.compute.remat,
            in_axes=(nn.broadcast, nn.broadcast, nn.broadcast),
        )(cfg, self.compute, self.keep)
        self.norm = RMSNorm(cfg.norm_eps, self.compute.dtype)
        if not cfg.tied_head:
            self.head = param(self, "head", normal, (cfg.width, cfg.vocab), ("embed", "vocab"))

    def embed(self, tokens: Int[Array, "batch length"]) -> Float[Array, "batch length width"]:
        """int32[B, T] -> dtype[B, T, D]."""
        # Cast after the look-up: the gradient is summed over a token's places in float32.
        return self.table[tokens].astype(self.compute.dtype)

    def __call__(
        self,
        x: Float[Array, "batch length width"],
        *,
        positions: Int[Array, "batch length"],
        segments: Int[Array, "batch length"],
        pool: Bool[Array, "batch spans length"] | None = None,
        cache: KVCache | None = None,
        slots: int = 0,
    ) -> DecoderOutput:
        """Run the blocks on input embeddings.

        Args:
            x: dtype[B, T, D].
            positions: int32[B, T].
            segments: int32[B, T]; 0 is padding, and tokens see their own segment only.
            pool: bool[B, N, T], spans to average each block's output over.
            cache: keys and values of past tokens; comes back with the new ones in it.
            slots: of the cache that a first pass (`cache` None) returns.
        """
        cfg = self.config
        x = residual(x)
        rotation = rope.rotation(
            positions, rope.frequencies(cfg.head_dim, cfg.rope_theta, cfg.rope_scaling)
        )
        if cache is not None:
            return self._extend(x, rotation, positions, segments, cache)
        visible = Visibility(positions, positions, segments, segments, True, cfg.window)
        x, (pooled, kept) = self.blocks(x, rotation, visible, pool)
        if self.keep:
            cache = KVCache.of(kept[0], kept[1], positions, segments, slots=slots)
        return DecoderOutput(x, pooled, cache)

    def _extend(
        self,
        x: Array,
        rotation: tuple[Array, Array],
        positions: Array,
        segments: Array,
        cache: KVCache,
    ) -> DecoderOutput:
        """The blocks on tokens behind those of a cache, layer by layer and not by `nn.scan`."""
        cfg = self.config
        layers: list[LayerCache] = []
        cache = cache.add(positions, segments)
        visible = Visibility(positions, cache.positions, segments, cache.segments, True, cfg.window)
        block = DecoderBlock(cfg, self.compute, keep=True, parent=None)
        stacked = self.blocks.variables["params"]
        for i, past in enumerate(cache.layers):
            params = jax.tree.map(operator.itemgetter(i), stacked)
            x, (_, kept) = block.apply({"params": params}, x, rotation, visible, None, past)
            layers.append(cast(LayerCache, kept))
        return DecoderOutput(x, None, cache.with_layers(layers))

    def final_norm(self, hidden: Float[Array, "*lead width"]) -> Float[Array, "*lead width"]:
        """dtype[..., D] -> dtype[..., D]: what the head reads."""
        return self.norm(hidden)

    def head_kernel(self) -> Float[Array, "width vocab"]:
        """float[D, V], as it is stored."""
        return self.table.T if self.config.tied_head else self.head

    def logits(self, hidden: Float[Array, "*lead width"]) -> Float[Array, "*lead vocab"]:
        """dtype[..., D], any block's output -> float32[..., V] (the logit lens for inner ones)."""
        kernel = self.head_kernel().astype(self.compute.dtype)
        return jnp.matmul(self.norm(hidden), kernel, preferred_element_type=jnp.float32)

    def init_all(self, tokens: Array) -> Array:
        """Touch every parameter, for `init`."""
        ones = jnp.ones_like(tokens)
        out = self(self.embed(tokens), positions=ones, segments=ones)
        return self.logits(out.hidden)


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
