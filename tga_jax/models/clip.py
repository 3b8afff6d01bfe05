"""CLIP: images and texts in one space (arXiv 2103.00020).

Pure functions of (params, arrays). Parameters are one nested dict with the keys "vision",
"text", "visual_projection", "text_projection" and "logit_scale". Letters: B batch, T length,
D width, E embedding width.
"""

from __future__ import annotations

import dataclasses
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Shaped, UInt8

from tga_jax.models.config import ClipConfig, Compute, TextConfig
from tga_jax.models.layers import LayerNorm, Linear, param, stack
from tga_jax.models.llava import PixelNorm
from tga_jax.models.visibility import Visibility
from tga_jax.models.vision import EncoderBlock, VisionTower

Params = dict[str, Any]

LEGACY_END = 2  # as a config's end token: the text's highest token id is its end


class TextTower(nn.Module):
    """Tokens -> hidden states, each text read at its end token."""

    config: TextConfig
    compute: Compute = Compute()

    @nn.compact
    def __call__(self, tokens: Array, mask: Array | None = None) -> tuple[Array, Array]:
        """Encode texts.

        Args:
            tokens: int32[B, T], T at most `config.length`.
            mask: bool or int[B, T], 0 at padding; None: nothing is padding. Padding behind the
                end token changes nothing in the second result.

        Returns:
            dtype[B, T, D] after the final norm, and dtype[B, D], the same at the end token.
        """
        cfg = self.config
        x = self._embed(tokens)
        segments = jnp.ones_like(tokens) if mask is None else mask.astype(jnp.int32)
        places = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
        blocks = stack(
            EncoderBlock, layers=cfg.layers, remat=self.compute.remat, in_axes=nn.broadcast
        )
        x, _ = blocks(
            width=cfg.width,
            heads=cfg.heads,
            ffn=cfg.ffn,
            act=cfg.activation,
            norm_eps=cfg.norm_eps,
            compute=self.compute,
            name="blocks",
        )(x, Visibility(places, places, segments, segments, causal=True))
        x = LayerNorm(cfg.norm_eps, self.compute.dtype, name="final_norm")(x)
        ends = end_places(tokens, cfg.end_token)
        return x, jnp.take_along_axis(x, ends[:, None, None], axis=1)[:, 0]

    def _embed(self, tokens: Array) -> Array:
        cfg, dtype = self.config, self.compute.dtype
        if tokens.shape[1] > cfg.length:
            raise ValueError(f"{tokens.shape[1]} tokens where the text tower takes {cfg.length}")
        table = param(
            self, "embed", nn.initializers.normal(0.02), (cfg.vocab, cfg.width),
            ("vocab", "vision_embed"),
        )  # fmt: skip
        positions = param(
            self, "positions", nn.initializers.normal(0.01), (cfg.length, cfg.width),
            (None, "vision_embed"),
        )  # fmt: skip
        x = table[tokens].astype(dtype) + positions[: tokens.shape[1]].astype(dtype)
        return nn.with_logical_constraint(x, ("batch", "length", "activation"))


def end_places(tokens: Int[Array, "batch length"], end_token: int) -> Int[Array, " batch"]:
    """Where each text is read: int32[B, T] -> int32[B]; 0 for a text without an end token."""
    if end_token == LEGACY_END:
        return jnp.argmax(tokens, axis=1)
    return jnp.argmax(tokens == end_token, axis=1)


@dataclasses.dataclass(frozen=True)
class Clip:
    """A CLIP model without its parameters; hashable, so that it can be a static argument."""

    config: ClipConfig
    pixel_norm: PixelNorm
    compute: Compute = Compute()

    def init(self, key: Array) -> Params:
        """Random parameters, boxed with their logical axes (`flax.linen.meta.unbox` them)."""
        cfg = self.config
        keys = jax.random.split(key, 5)
        side = cfg.vision.image_size
        vision, text = jnp.zeros((1, cfg.vision.width)), jnp.zeros((1, cfg.text.width))
        scale = nn.with_logical_partitioning(nn.initializers.constant(cfg.logit_scale), ())
        return {
            "vision": self._vision.init(keys[0], jnp.zeros((1, side, side, 3)))["params"],
            "text": self._text.init(keys[1], jnp.zeros((1, 2), jnp.int32))["params"],
            "visual_projection": self._projection.init(keys[2], vision)["params"],
            "text_projection": self._projection.init(keys[3], text)["params"],
            "logit_scale": scale(keys[4], ()),
        }

    def embed_images(
        self, params: Params, images: UInt8[Array, "batch side side 3"], *, normalize: bool = True
    ) -> Float[Array, "batch embedding"]:
        """uint8[B, side, side, 3] -> float32[B, E], of length 1 unless `normalize` is False."""
        _, pooled = self._vision.apply({"params": params["vision"]}, self.pixel_norm(images))
        return self._project(params["visual_projection"], cast(Array, pooled), normalize)

    def embed_texts(
        self,
        params: Params,
        tokens: Int[Array, "batch length"],
        mask: Shaped[Array, "batch length"] | None = None,
        *,
        normalize: bool = True,
    ) -> Float[Array, "batch embedding"]:
        """int32[B, T] (and its mask) -> float32[B, E], of length 1 unless `normalize` is False."""
        _, pooled = self._text.apply({"params": params["text"]}, tokens, mask)
        return self._project(params["text_projection"], cast(Array, pooled), normalize)

    def logits(
        self,
        params: Params,
        images: Float[Array, "images embedding"],
        texts: Float[Array, "texts embedding"],
    ) -> Float[Array, "images texts"]:
        """Normalised embeddings float32[N, E], float32[M, E] -> float32[N, M], scaled cosines."""
        scale = jnp.exp(params["logit_scale"].astype(jnp.float32))
        return scale * jnp.matmul(images, texts.T, preferred_element_type=jnp.float32)

    @property
    def _vision(self) -> VisionTower:
        return VisionTower(self.config.vision, self.compute)

    @property
    def _text(self) -> TextTower:
        return TextTower(self.config.text, self.compute)

    @property
    def _projection(self) -> Linear:
        return Linear(self.config.embedding, ("vision_embed", None), dtype=self.compute.dtype)

    def _project(self, params: Params, pooled: Array, normalize: bool) -> Array:
        x = cast(Array, self._projection.apply({"params": params}, pooled)).astype(jnp.float32)
        # Within the root: the gradient of a norm at 0 is not a number.
        return x * jax.lax.rsqrt(jnp.sum(x * x, -1, keepdims=True) + 1e-12) if normalize else x
