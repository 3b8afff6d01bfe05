"""One decoder; what families do differently are fields of `DecoderConfig`.

Letters: B batch, T length, D width, H heads, K kv heads, C head width, V vocabulary, L layers,
S cache columns, N pooled spans.

Blocks are stacked by `nn.scan` and so are one program: whether a block has the window comes in as
an array that is scanned over.
"""

from __future__ import annotations

import functools
import operator
from typing import cast

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from tga_jax.models import rope
from tga_jax.models.cache import KVCache, LayerCache
from tga_jax.models.config import Compute, DecoderConfig
from tga_jax.models.decoder_block import DecoderBlock, Rotation, rms_norm
from tga_jax.models.layers import capped, param, residual, stack
from tga_jax.models.visibility import Visibility


@flax.struct.dataclass
class DecoderOutput:
    """hidden: dtype[B, T, D] after the last block, before the final norm.

    pooled: float32[L, B, N, D], the mean of each block's output over each span, of the blocks that
    ran; None without spans. cache: the filled cache; None without one.
    """

    hidden: Array
    pooled: Array | None
    cache: KVCache | None


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
        self.norm = rms_norm(cfg, self.compute)
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
        blocks: int | None = None,
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
            blocks: how many blocks run, counted from the first; None: all. Fewer than all are for
                a pass without gradient and cache.
        """
        cfg = self.config
        x = residual(x)
        rotation = self._rotation(positions, segments)
        if cache is not None:
            return self._extend(x, rotation, positions, segments, shift, cache)
        visible = Visibility(positions, positions, segments, segments, True, cfg.window)
        if blocks is not None and blocks < cfg.layers:
            return self._first(blocks, x, rotation, visible, pool, shift)
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

    def _first(
        self,
        count: int,
        x: Array,
        rotation: tuple[Rotation, Rotation | None],
        visible: Visibility,
        pool: Array | None,
        shift: Array | None,
    ) -> DecoderOutput:
        """The first `count` blocks.

        The loop looks a block's parameters up by its number: `nn.scan` over fewer blocks wants a
        copy of their parameters.
        """
        block = DecoderBlock(self.config, self.compute, parent=None)
        stacked = self.blocks.variables["params"], windowed_layers(self.config), shift

        def step(x: Array, layer: Array) -> tuple[Array, Array | None]:
            params, windowed, added = jax.tree.map(
                lambda p: jax.lax.dynamic_index_in_dim(p, layer, keepdims=False), stacked
            )
            inputs = x, rotation, visible, pool, windowed, added
            x, (pooled, _) = block.apply({"params": params}, *inputs)
            return x, cast("Array | None", pooled)

        x, pooled = jax.lax.scan(step, x, jnp.arange(count))
        return DecoderOutput(x, pooled, None)

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
