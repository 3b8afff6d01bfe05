"""Shapes of published models by name or hub id, so that a plan needs no download.

From the models' config.json. Vocabularies have room for the image and padding tokens, as
`hf/source.py` makes it.
"""

from __future__ import annotations

from typing import Any

from tga_jax.models.config import DecoderConfig, LlavaConfig, Tiling, VisionConfig

CLIP_L_336 = VisionConfig(image_size=336, patch_size=14, width=1024, layers=24, heads=16, ffn=4096)
SIGLIP_SO400M_384 = VisionConfig(
    image_size=384, patch_size=14, width=1152, layers=26, heads=16, ffn=4304,
    activation="gelu_pytorch_tanh", norm_eps=1e-6, class_token=False, pre_norm=False,
    patch_bias=True,
)  # fmt: skip
CLIP_B_32 = VisionConfig(image_size=224, patch_size=32, width=768, layers=12, heads=12, ffn=3072)

SMOLLM2_135M = DecoderConfig(
    vocab=49216, width=576, layers=30, heads=9, kv_heads=3, head_dim=64, ffn=1536,
    rope_theta=1e5, tied_head=True,
)  # fmt: skip
MISTRAL_7B = DecoderConfig(
    vocab=32064,
    width=4096,
    layers=32,
    heads=32,
    kv_heads=8,
    head_dim=128,
    ffn=14336,
    rope_theta=1e6,
)
TINYLLAMA_1B = DecoderConfig(
    vocab=32064, width=2048, layers=22, heads=32, kv_heads=4, head_dim=64, ffn=5632
)
VICUNA_7B = DecoderConfig(
    vocab=32064, width=4096, layers=32, heads=32, kv_heads=32, head_dim=128, ffn=11008
)
VICUNA_13B = DecoderConfig(
    vocab=32064, width=5120, layers=40, heads=40, kv_heads=40, head_dim=128, ffn=13824
)

QWEN2_7B = DecoderConfig(
    vocab=152128, width=3584, layers=28, heads=28, kv_heads=4, head_dim=128, ffn=18944,
    rope_theta=1e6, norm_eps=1e-6, qkv_bias=True,
)  # fmt: skip
QWEN2_0_5B = DecoderConfig(
    vocab=152000, width=896, layers=24, heads=14, kv_heads=2, head_dim=64, ffn=4864,
    rope_theta=1e6, norm_eps=1e-6, qkv_bias=True, tied_head=True,
)  # fmt: skip

NEXT = Tiling(((336, 672), (672, 336), (672, 672), (1008, 336), (336, 1008)))
ONEVISION = Tiling(tuple((384 * a, 384 * b) for a in range(1, 7) for b in range(1, 7)), most=9)
_ONEVISION: Any = {"image_token": 151646, "feature_layer": -1, "feature_select": "full"}

MODELS = {
    "llava_smollm2_135m": LlavaConfig(CLIP_B_32, SMOLLM2_135M, image_token=49152),
    "llava_tinyllama_1.1b": LlavaConfig(CLIP_L_336, TINYLLAMA_1B, image_token=32000),
    "llava_mistral_7b": LlavaConfig(CLIP_L_336, MISTRAL_7B, image_token=32000),
    "llava_1.5_7b": LlavaConfig(CLIP_L_336, VICUNA_7B, image_token=32000),
    "llava_1.5_13b": LlavaConfig(CLIP_L_336, VICUNA_13B, image_token=32000),
    "llava_1.6_mistral_7b": LlavaConfig(CLIP_L_336, MISTRAL_7B, image_token=32000, tiling=NEXT),
    "llava_1.6_vicuna_7b": LlavaConfig(CLIP_L_336, VICUNA_7B, image_token=32000, tiling=NEXT),
    "llava_onevision_0.5b": LlavaConfig(
        SIGLIP_SO400M_384, QWEN2_0_5B, tiling=ONEVISION, **_ONEVISION
    ),
    "llava_onevision_7b": LlavaConfig(SIGLIP_SO400M_384, QWEN2_7B, tiling=ONEVISION, **_ONEVISION),
}
HUB = {
    "openai/clip-vit-base-patch32+HuggingFaceTB/SmolLM2-135M-Instruct": "llava_smollm2_135m",
    "openai/clip-vit-large-patch14-336+mistralai/Mistral-7B-Instruct-v0.2": "llava_mistral_7b",
    "llava-hf/llava-1.5-7b-hf": "llava_1.5_7b",
    "llava-hf/llava-1.5-13b-hf": "llava_1.5_13b",
    "llava-hf/llava-v1.6-mistral-7b-hf": "llava_1.6_mistral_7b",
    "llava-hf/llava-v1.6-vicuna-7b-hf": "llava_1.6_vicuna_7b",
    "llava-hf/llava-onevision-qwen2-0.5b-ov-hf": "llava_onevision_0.5b",
    "llava-hf/llava-onevision-qwen2-7b-ov-hf": "llava_onevision_7b",
}
