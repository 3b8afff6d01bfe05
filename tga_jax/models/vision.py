"""Vision transformers of CLIP (arXiv 2103.00020) and SigLIP (arXiv 2303.15343).

Letters: B images, P patches, D width, L layers.
"""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float

from tga_jax.models.attention import attend
from tga_jax.models.config import Compute, VisionConfig
from tga_jax.models.layers import LayerNorm, Linear, activation, param, stack
from tga_jax.models.visibility import Visibility


class EncoderBlock(nn.Module):
    """Pre-norm transformer block; every token sees every token."""

    width: int
    heads: int
    ffn: int
    act: str
    norm_eps: float
    compute: Compute
    keep: bool = False  # also emit the new residual stream

    @nn.compact
    def __call__(self, x: Array, visible: Visibility | None = None) -> tuple[Array, Array | None]:
        """float[B, T, D] -> float[B, T, D]."""
        dtype = self.compute.dtype
        y = LayerNorm(self.norm_eps, dtype, name="norm1")(x)
        x = x + self._attention(y, visible)
        y = LayerNorm(self.norm_eps, dtype, name="norm2")(x)
        y = Linear(self.ffn, ("vision_embed", "ffn"), bias=True, dtype=dtype, name="fc1")(y)
        y = nn.with_logical_constraint(activation(self.act)(y), ("batch", "length", "ffn"))
        x = x + Linear(self.width, ("ffn", "vision_embed"), bias=True, dtype=dtype, name="fc2")(y)
        x = nn.with_logical_constraint(x, ("batch", "length", "activation"))
        return x, x if self.keep else None

    def _attention(self, x: Array, visible: Visibility | None) -> Array:
        batch, length, width = x.shape
        q, k, v = (
            Linear(width, ("vision_embed", "heads"), bias=True, dtype=self.compute.dtype, name=n)(
                x
            ).reshape(batch, length, self.heads, width // self.heads)
            for n in ("q", "k", "v")
        )
        q, k, v = (checkpoint_name(a, "qkv") for a in (q, k, v))
        y = attend(q, k, v, visible, backend=self.compute.attention)
        y = checkpoint_name(y, "attention").reshape(batch, length, width)
        out = Linear(
            width, ("heads", "vision_embed"), bias=True, dtype=self.compute.dtype, name="o"
        )
        return out(y)


class VisionTower(nn.Module):
    """Pixels -> the residual stream after the last of `config.layers` blocks."""

    config: VisionConfig
    compute: Compute = Compute()
    keep: bool = False  # return the residual stream at all depths

    @nn.compact
    def __call__(self, pixels: Array) -> tuple[Array, Array]:
        """Encode normalised pixels.

        Args:
            pixels: float32[B, side, side, 3].

        Returns:
            float[B, 1 + P, D], the residual stream (class token first, if there is one), and
            float[B, D], its first token after the final norm. With `keep`, the first result is
            float[1 + L, B, 1 + P, D]: the embeddings, and the stream after every block.
        """
        cfg = self.config
        x = self._embed(pixels)
        blocks = stack(
            EncoderBlock, layers=cfg.layers, remat=self.compute.remat, in_axes=nn.broadcast
        )
        last, states = blocks(
            width=cfg.width,
            heads=cfg.heads,
            ffn=cfg.ffn,
            act=cfg.activation,
            norm_eps=cfg.norm_eps,
            compute=self.compute,
            keep=self.keep,
            name="blocks",
        )(x, None)
        pooled = LayerNorm(cfg.norm_eps, self.compute.dtype, name="post_norm")(last[:, 0])
        return jnp.concatenate([x[None], states]) if self.keep else last, pooled

    def _embed(self, pixels: Array) -> Array:
        """Split pixels into patches, project, add class token and positions, maybe normalise."""
        cfg, dtype = self.config, self.compute.dtype
        normal = nn.initializers.normal(0.02)
        patch = Linear(
            cfg.width, (None, "vision_embed"), bias=cfg.patch_bias, dtype=dtype, name="patch"
        )
        x = patch(to_patches(pixels, cfg.patch_size))
        if cfg.class_token:
            cls = param(self, "class_token", normal, (cfg.width,), ("norm",))
            cls = jnp.broadcast_to(cls.astype(dtype), (x.shape[0], 1, cfg.width))
            x = jnp.concatenate([cls, x], axis=1)
        shape = (cfg.patches + cfg.class_token, cfg.width)
        positions = param(self, "positions", normal, shape, (None, "vision_embed"))
        x = x + positions.astype(dtype)
        if cfg.pre_norm:
            x = LayerNorm(cfg.norm_eps, dtype, name="pre_norm")(x)
        return nn.with_logical_constraint(x, ("batch", "length", "activation"))


def to_patches(
    pixels: Float[Array, "batch side side 3"], patch: int
) -> Float[Array, "batch patches {patch}*{patch}*3"]:
    """float[B, side, side, 3] -> float[B, P, patch * patch * 3], row by row.

    A rim narrower than a patch is left out, as a strided convolution does.
    """
    batch, side = pixels.shape[0], pixels.shape[1]
    count = side // patch
    x = pixels[:, : count * patch, : count * patch]
    x = x.reshape(batch, count, patch, count, patch, 3).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(batch, count * count, patch * patch * 3)
