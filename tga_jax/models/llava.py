"""LLaVA: image features take the places of the image tokens (arXiv 2304.08485).

Pure functions of (params, arrays). Parameters are one nested dict with the keys "vision",
"projector" and "decoder". Letters: B batch, T length, M images a row, P tokens of an
image, D decoder width, L layers, N pooled spans.
"""

from __future__ import annotations

import dataclasses
import functools
import operator
from collections.abc import Collection
from typing import Any, cast

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, UInt8

from tga_jax.models.cache import KVCache
from tga_jax.models.config import Compute, DecoderConfig, LlavaConfig
from tga_jax.models.decoder import Decoder, DecoderOutput
from tga_jax.models.projector import Projector
from tga_jax.models.tiling import TiledImages, placed
from tga_jax.models.vision import VisionTower

Params = dict[str, Any]
PARTS = ("vision", "projector", "decoder")


def part_of(path: str) -> str:
    """The part of `PARTS` that a parameter is in, or "adapters" for those of LoRA."""
    return "adapters" if "/lora_" in path else path.split("/")[0]


@dataclasses.dataclass(frozen=True)
class PixelNorm:
    """(pixel * rescale - mean) / std, per channel."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    rescale: float = 1 / 255

    def __call__(self, pixels: Array) -> Array:
        """uint8[..., 3] -> float32[..., 3]."""
        x = pixels.astype(jnp.float32) * self.rescale
        return (x - jnp.array(self.mean, jnp.float32)) / jnp.array(self.std, jnp.float32)


@dataclasses.dataclass(frozen=True)
class Llava:
    """A LLaVA model without its parameters; hashable, so that it can be a static argument."""

    config: LlavaConfig
    pixel_norm: PixelNorm
    compute: Compute = Compute()

    @property
    def decoder(self) -> Decoder:
        """The language model, as a Flax module without parameters."""
        return Decoder(self.config.decoder, self.compute)

    @property
    def projector(self) -> Projector:
        """Vision width -> decoder width."""
        cfg = self.config
        return Projector(
            cfg.projector,
            cfg.decoder.width,
            cfg.projector_bias,
            self.compute.dtype,
            newline=cfg.tiling is not None,
        )

    def init(self, key: Array, parts: Collection[str] = PARTS) -> Params:
        """Random parameters, boxed with their logical axes (`flax.linen.meta.unbox` them).

        Args:
            key: of all parts; what one part is does not depend on which others are asked for.
            parts: of the keys "vision", "projector" and "decoder" those that are wanted.
        """
        cfg = self.config
        of_vision, of_projector, of_decoder = jax.random.split(key, 3)
        params: Params = {}
        if "vision" in parts:
            side = cfg.vision.image_size
            pixels = jnp.zeros((1, side, side, 3))
            tower = VisionTower(cfg.vision, self.compute)
            params["vision"] = tower.init(of_vision, pixels)["params"]
        if "projector" in parts:
            features = jnp.zeros((1, 1, len(cfg.feature_states) * cfg.vision.width))
            params["projector"] = self.projector.init(of_projector, features)["params"]
        if "decoder" in parts:
            tokens = jnp.zeros((1, 2), jnp.int32)
            params["decoder"] = self.decoder.init(of_decoder, tokens, method="init_all")["params"]
        return params

    def abstract_params(self) -> Params:
        """The shapes of `init`'s result; the model is traced for them only once."""
        return _abstract_params(self)

    def image_features(
        self, params: Params, images: UInt8[Array, "batch images side side 3"]
    ) -> Float[Array, "batch tokens width"]:
        """uint8[B, M, side, side, 3] -> dtype[B, M * P, D]."""
        cfg = self.config
        batch, count = images.shape[:2]
        vision = dataclasses.replace(cfg.vision, layers=cfg.feature_blocks)
        tower_params = {
            **params["vision"],
            "blocks": jax.tree.map(lambda p: p[: cfg.feature_blocks], params["vision"]["blocks"]),
        }
        pixels = self.pixel_norm(images.reshape(batch * count, *images.shape[2:]))
        several = len(cfg.feature_states) > 1
        tower = VisionTower(vision, self.compute, keep=several)
        features = cast(Array, tower.apply({"params": tower_params}, pixels)[0])
        if several:
            features = jnp.concatenate([features[i] for i in cfg.feature_states], axis=-1)
        if cfg.feature_select == "default":
            features = features[:, 1:]
        features = cast(Array, self.projector.apply({"params": params["projector"]}, features))
        return features.reshape(batch, count * cfg.image_tokens, -1)

    def tile_features(
        self, params: Params, images: TiledImages
    ) -> Float[Array, "batch length width"]:
        """What each token shows of the row's tiles, of use where it is an image's: dtype[B, T, D].

        The newline stands before the features of the tiles, as `tiling.NEWLINE` says.
        """
        features = self.image_features(params, images.tiles)
        newline = params["projector"]["newline"].astype(features.dtype)
        newline = jnp.broadcast_to(newline, (features.shape[0], 1, features.shape[2]))
        return placed(jnp.concatenate([newline, features], axis=1), images)

    def embed(
        self,
        params: Params,
        tokens: Int[Array, "batch length"],
        images: UInt8[Array, "batch images side side 3"] | TiledImages | None,
    ) -> Float[Array, "batch length width"]:
        """Input embeddings: a row's k-th image token takes the k-th of its image features.

        Args:
            params: the model's parameters.
            tokens: int32[B, T], each image's token repeated P times, or as its `Layout` says.
            images: uint8[B, M, side, side, 3]; None or M = 0 for text; with a tiling as
                `TiledImages`, which say what each token takes.

        Returns:
            dtype[B, T, D].
        """
        x = self._decoder(params, tokens, method="embed")
        if isinstance(images, TiledImages):
            features = self.tile_features(params, images)
            is_image = tokens == self.config.image_token
            return jnp.where(is_image[..., None], features.astype(x.dtype), x)
        if images is None or images.shape[1] == 0:
            return x
        features = self.image_features(params, images)
        is_image = tokens == self.config.image_token
        order = jnp.clip(jnp.cumsum(is_image, axis=1) - 1, 0, features.shape[1] - 1)
        placed = jnp.take_along_axis(features, order[..., None], axis=1)
        return jnp.where(is_image[..., None], placed.astype(x.dtype), x)

    def decode(
        self,
        params: Params,
        embeddings: Float[Array, "batch length width"],
        *,
        positions: Int[Array, "batch length"],
        segments: Int[Array, "batch length"],
        pool: Bool[Array, "batch spans length"] | None = None,
        shift: Float[Array, "layers width"] | None = None,
        cache: KVCache | None = None,
        room: int | None = None,
        blocks: int | None = None,
    ) -> DecoderOutput:
        """The decoder's blocks on input embeddings; see `Decoder.__call__`.

        With `room` or `cache` the output has a cache.
        """
        keep = room is not None or cache is not None
        keeping = Decoder(self.config.decoder, self.compute, keep=keep)
        out = keeping.apply(
            {"params": chosen_adapters(params["decoder"], self.config.decoder)},
            embeddings,
            positions=positions,
            segments=segments,
            pool=pool,
            shift=shift,
            cache=cache,
            room=room,
            blocks=blocks,
        )
        return cast(DecoderOutput, out)

    def by_layer(self, params: Params) -> Params:
        """The decoder's parameters with arrays of their own for each block, to decode with a cache.

        XLA's CPU backend copies a block's parameters out of their stack whenever it needs them,
        so that a loop over tokens would copy the whole model at every token.
        """
        decoder = chosen_adapters(params["decoder"], self.config.decoder)
        blocks = {
            str(layer): jax.tree.map(operator.itemgetter(layer), decoder["blocks"])
            for layer in range(self.config.decoder.layers)
        }
        return {"decoder": {**decoder, "blocks": blocks}}

    def final_norm(
        self, params: Params, hidden: Float[Array, "*lead width"]
    ) -> Float[Array, "*lead width"]:
        """dtype[..., D] -> dtype[..., D], what the head reads."""
        return self._decoder(params, hidden, method="final_norm")

    def head_kernel(self, params: Params) -> Float[Array, "width vocab"]:
        """float[D, V], as it is stored."""
        return self._decoder(params, method="head_kernel")

    def logits(
        self, params: Params, hidden: Float[Array, "*lead width"]
    ) -> Float[Array, "*lead vocab"]:
        """dtype[..., D], any block's output -> float32[..., V]."""
        return self._decoder(params, hidden, method="logits")

    def _decoder(self, params: Params, *args: Any, method: str | None = None, **kwargs: Any) -> Any:
        decoder = chosen_adapters(params["decoder"], self.config.decoder)
        return self.decoder.apply({"params": decoder}, *args, method=method, **kwargs)


def chosen_adapters(decoder: Params, config: DecoderConfig) -> Params:
    """Adapters of layers that were not chosen add nothing and get no gradient.

    All layers have them, as layers are stacked; they begin with B = 0 and stay there.
    """
    if config.lora is None or config.lora.layers is None or "0" in decoder["blocks"]:
        return decoder  # of `by_layer`'s they are chosen already
    chosen = jnp.zeros((config.layers, 1, 1)).at[jnp.array(config.lora.layers)].set(1.0)

    def mask(path: Any, x: Array) -> Array:
        return x * chosen.astype(x.dtype) if path[-1].key == "lora_b" else x

    return jax.tree_util.tree_map_with_path(mask, decoder)


@functools.lru_cache(maxsize=16)
def _abstract_params(model: Llava) -> Params:
    """Tracing takes half a second, and a stage asks for the shapes six times."""
    return jax.eval_shape(model.init, jax.random.key(0))
