"""One decoder; what families do differently are fields of `DecoderConfig`.

Letters: B batch, T length, D width, H heads, K kv heads, C head width, V vocabulary, L layers,
S cache columns, N pooled spans.

Blocks are stacked by `nn.scan` and so are one program: whether a block has the window comes in as
an array that is scanned over.
"""

from __future__ import annotations

import dataclasses
import functools
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
from tga_jax.models.layers import Linear, RMSNorm, activation, capped, param, residual, stack
from tga_jax.models.visibility import Visibility

Rotation = tuple[Array, Array]  # cosines and sines of the positions


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
        return _rms_norm(self.config, self.compute, name)

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
            in_axes=(nn.broadcast, nn.broadcast, nn.broadcast, 0, 0),
        )(cfg, self.compute, self.keep)
        self.norm = _rms_norm(cfg, self.compute)
        if not cfg.tied_head:
            self.head = param(self, "head", normal, (cfg.width, cfg.vocab), ("embed", "vocab"))

    def embed(self, tokens: Int[Array, "batch length"]) -> Float[Array, "batch length width"]:
        """int32[B, T] -> dtype[B, T, D]."""
        # Cast after the look-up: the gradient is summed over a token's places in float32.
        x = self.table[tokens].astype(self.compute.dtype)
        scale = self.config.embedding_scale
        return x if scale == 1 else x * jnp.asarray(scale, x.dtype)

    def __call__(
        self,
        x: Float[Array, "batch length width"],
        *,
        positions: Int[Array, "batch length"],
        segments: Int[Array, "batch length"],
        pool: Bool[Array, "batch spans length"] | None = None,
        shift: Float[Array, "layers width"] | None = None,
        cache: KVCache | None = None,
        room: int | None = None,
    ) -> DecoderOutput:
        """Run the blocks on input embeddings.

        Args:
            x: dtype[B, T, D].
            positions: int32[B, T].
            segments: int32[B, T]; 0 is padding, and tokens see their own segment only.
            pool: bool[B, N, T], spans to average each block's output over.
            shift: float[L, D], added to each block's output at every position.
            cache: keys and values of past tokens; comes back with those of x's one token in it.
            room: for new tokens in the cache that a first pass returns; None: it returns none.
        """
        cfg = self.config
        x = residual(x)
        rotation = self._rotation(positions, segments)
        if cache is not None:
            return self._extend(x, rotation, positions, segments, shift, cache)
        visible = Visibility(positions, positions, segments, segments, True, cfg.window)
        x, (pooled, kept) = self.blocks(x, rotation, visible, pool, windowed_layers(cfg), shift)
        if self.keep:
            cache = KVCache.of(kept[0], kept[1], positions, segments, room=room or 0)
        return DecoderOutput(x, pooled, cache)

    def _rotation(self, positions: Array, segments: Array) -> tuple[Rotation, Rotation | None]:
        """Of all blocks, and that of blocks with the window where it is another."""
        cfg = self.config
        rotations = functools.partial(rope.rotations, positions, segments, head_dim=cfg.head_dim)
        every = rotations(theta=cfg.rope_theta, scaling=cfg.rope_scaling)
        theta = cfg.window_rope_theta
        return every, None if theta is None else rotations(theta=theta, scaling=None)

    def _extend(
        self,
        x: Array,
        rotation: tuple[Rotation, Rotation | None],
        positions: Array,
        segments: Array,
        shift: Array | None,
        cache: KVCache,
    ) -> DecoderOutput:
        """The blocks on a token behind those of a cache, layer by layer and not by `nn.scan`."""
        cfg = self.config
        layers: list[LayerCache] = []
        cache = cache.add(positions, segments)
        visible = Visibility(positions, cache.positions, segments, cache.segments, True, cfg.window)
        block = DecoderBlock(cfg, self.compute, keep=True, parent=None)
        blocks = self.blocks.variables["params"]
        for i, past in enumerate(cache.layers):
            layer = operator.itemgetter(i)
            windowed, added = jax.tree.map(layer, (windowed_layers(cfg), shift))
            # `Llava.by_layer` may have cut them out before the loop that this is in.
            params = blocks[str(i)] if "0" in blocks else jax.tree.map(layer, blocks)
            inputs = x, rotation, visible, None, windowed, added, past
            x, (_, kept) = block.apply({"params": params}, *inputs)
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
        logits = jnp.matmul(self.norm(hidden), kernel, preferred_element_type=jnp.float32)
        return capped(logits, self.config.logit_softcap)

    def init_all(self, tokens: Array) -> Array:
        """Touch every parameter, for `init`."""
        ones = jnp.ones_like(tokens)
        out = self(self.embed(tokens), positions=ones, segments=ones)
        return self.logits(out.hidden)


def windowed_layers(config: DecoderConfig) -> Bool[Array, " layers"] | None:
    """bool[L], which blocks have the window; None where all are alike."""
    if config.window_layers is None:
        return None
    return jnp.isin(jnp.arange(config.layers), jnp.array(config.window_layers))


def _rms_norm(config: DecoderConfig, compute: Compute, name: str | None = None) -> RMSNorm:
    return RMSNorm(config.norm_eps, compute.dtype, config.norm_offset, name=name)


def _chosen(rotation: tuple[Rotation, Rotation | None], windowed: Array | None) -> Rotation:
    every, of_windowed = rotation
    if of_windowed is None:
        return every
    if windowed is None:
        return of_windowed
    return jax.tree.map(functools.partial(jnp.where, windowed), of_windowed, every)


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
