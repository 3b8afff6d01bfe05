"""FLOPs of a step by hand: 2 a parameter and token forward, and for the backward pass 2 more for
the gradient that passes through a layer and 2 for that of trained parameters."""

from __future__ import annotations

import dataclasses

from tga_jax.models.config import LlavaConfig


@dataclasses.dataclass(frozen=True)
class Forward:
    """Forward FLOPs: products with parameters (or with masks), and attention's."""

    products: float
    attention: float = 0.0

    def step(self, trained: bool, passes_gradient: bool) -> float:
        """With the backward pass that this part has; both factors of attention's are gradients."""
        backward = trained or passes_gradient
        factor = 3 if trained else 2 if passes_gradient else 1
        return factor * self.products + (3 if backward else 1) * self.attention


def step_flops(
    config: LlavaConfig,
    trained: tuple[bool, bool, bool],
    guided: bool,
    *,
    rows: int,
    length: int,
    caption_length: int,
    guided_blocks: int,
) -> float:
    """Model FLOPs of a step with one image a row; trained: (vision, projector, decoder).

    The caption pass runs the first guided_blocks blocks.
    """
    vision, projector, decoder = trained
    lora = decoder and config.decoder.lora is not None  # the matrices themselves are frozen
    decoder = decoder and not lora
    through = vision or projector or lora
    total = _vision(config).step(vision, False) - (_patches(config) if vision else 0)
    total += _projector(config).step(projector, vision)
    if projector and not vision:  # its first matrix passes no gradient on
        total -= 2 * config.image_tokens * config.vision.width * config.decoder.width
    total += _blocks(config, length).step(decoder, through)
    total += _head(config, length).step(decoder, True)
    total += _lora(config, length).step(lora, False)
    if guided:
        total += _pooling(config, length, spans=2).step(False, True)
        first = dataclasses.replace(config.decoder, layers=guided_blocks)
        config = dataclasses.replace(config, decoder=first)
        total += _blocks(config, caption_length).step(False, False)
        total += _lora(config, caption_length).step(False, False)
        total += _pooling(config, caption_length, spans=1).step(False, False)
    return rows * total


def _blocks(config: LlavaConfig, length: int) -> Forward:
    """Of one sequence; causal attention counted at half its square."""
    d = config.decoder
    projections = d.width * d.head_dim * 2 * (d.heads + d.kv_heads) + 3 * d.width * d.ffn
    attention = d.layers * 2 * length**2 * d.heads * d.head_dim
    return Forward(2 * length * d.layers * projections, attention)


def _head(config: LlavaConfig, length: int) -> Forward:
    return Forward(2 * length * config.decoder.width * config.decoder.vocab)


def _pooling(config: LlavaConfig, length: int, *, spans: int) -> Forward:
    return Forward(2 * length * spans * config.decoder.width * config.decoder.layers)


def _lora(config: LlavaConfig, length: int) -> Forward:
    d = config.decoder
    if d.lora is None:
        return Forward(0.0)
    q, kv = d.heads * d.head_dim, d.kv_heads * d.head_dim
    sides = {"q": d.width + q, "k": d.width + kv, "v": d.width + kv, "o": q + d.width}
    sides |= dict.fromkeys(("gate", "up", "down"), d.width + d.ffn)
    products = d.layers * d.lora.rank * sum(sides[name] for name in d.lora.targets)
    return Forward(2 * length * products)


def _vision(config: LlavaConfig) -> Forward:
    """Of one image, in the vision blocks that run, and in the cutting into patches."""
    v, tokens = config.vision, config.vision.patches + 1
    products = config.feature_blocks * (4 * v.width * v.width + 2 * v.width * v.ffn)
    attention = config.feature_blocks * 4 * tokens**2 * v.width
    return Forward(2 * tokens * products + _patches(config), attention)


def _patches(config: LlavaConfig) -> float:
    """Its backward pass has the kernel's gradient alone: pixels have none."""
    v = config.vision
    return 2 * v.patches * v.patch_size**2 * 3 * v.width


def _projector(config: LlavaConfig) -> Forward:
    width = config.decoder.width
    first = config.vision.width * width
    products = first if config.projector == "linear" else first + width * width
    return Forward(2 * config.image_tokens * products)
