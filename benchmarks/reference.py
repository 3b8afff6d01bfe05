"""The shapes of the models that are timed, and transformers' config of them."""

from __future__ import annotations

from typing import Any

from tga_jax.hf.config_export import to_hf_config
from tga_jax.models.config import DecoderConfig, LlavaConfig, VisionConfig

IMAGE_TOKEN = 5


def small_llava(
    *,
    layers: int,
    width: int,
    ffn: int,
    heads: int,
    kv_heads: int,
    vocab: int,
    side: int,
    vision_width: int = 256,
    vision_layers: int = 6,
    tied_head: bool = False,
) -> LlavaConfig:
    """A LLaVA for CPUs whose images are `side` x `side` tokens, with Llama's own norm."""
    vision = VisionConfig(14 * side, 14, vision_width, vision_layers, 4, 4 * vision_width)
    decoder = DecoderConfig(
        vocab,
        width,
        layers,
        heads,
        kv_heads,
        width // heads,
        ffn,
        norm_eps=1e-6,
        tied_head=tied_head,
    )
    return LlavaConfig(vision, decoder, image_token=IMAGE_TOKEN)


def their_config(config: LlavaConfig, **text: Any) -> Any:
    """transformers' config of these shapes; `text`: more of its text_config."""
    import transformers

    source = {"text_config": {"max_position_embeddings": 4096} | text}
    content = to_hf_config(config, source=source, dtype="float32", pad_token_id=None)
    return transformers.LlavaConfig.from_dict(content)
