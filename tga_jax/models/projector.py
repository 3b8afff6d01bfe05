"""The projector between vision tower and decoder.

Letters: B batch, P image tokens, D decoder width.
"""

from __future__ import annotations

import flax.linen as nn
import jax

from tga_jax.models.layers import Linear, activation, param

Array = jax.Array


class Projector(nn.Module):
    """One matrix ("linear"), or LLaVA-1.5's "mlp2x_gelu" (arXiv 2310.03744).

    With `newline` it also holds the vector float[D] that ends rows of features; see `tiling`.
    """

    kind: str
    width: int
    bias: bool = True
    dtype: str = "float32"
    newline: bool = False

    @nn.compact
    def __call__(self, features: Array) -> Array:
        """float[B, P, vision width] -> float[B, P, D]."""
        if self.newline:
            normal = nn.initializers.normal(self.width**-0.5)
            param(self, "newline", normal, (self.width,), ("norm",))
        x = Linear(
            self.width, ("vision_embed", "ffn"), bias=self.bias, dtype=self.dtype, name="linear_1"
        )(features)
        if self.kind == "linear":
            return x
        x = activation("gelu")(x)
        return Linear(
            self.width, ("ffn", "embed"), bias=self.bias, dtype=self.dtype, name="linear_2"
        )(x)
