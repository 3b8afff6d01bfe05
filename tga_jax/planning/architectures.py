"""Shapes of published models by name or hub id, so that a plan needs no download.

From the models' config.json. Vocabularies have room for the image and padding tokens, as
`hf/source.py` makes it.
"""

from __future__ import annotations

from tga_jax.models.config import DecoderConfig, LlavaConfig, VisionConfig

CLIP_L_336 = VisionConfig(image_size=336, patch_size=14, width=1024, layers=24, heads=16, ffn=4096)
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

MODELS = {
    "llava_smollm2_135m": LlavaConfig(CLIP_B_32, SMOLLM2_135M, image_token=49152),
    "llava_tinyllama_1.1b": LlavaConfig(CLIP_L_336, TINYLLAMA_1B, image_token=32000),
    "llava_mistral_7b": LlavaConfig(CLIP_L_336, MISTRAL_7B, image_token=32000),
    "llava_1.5_7b": LlavaConfig(CLIP_L_336, VICUNA_7B, image_token=32000),
    "llava_1.5_13b": LlavaConfig(CLIP_L_336, VICUNA_13B, image_token=32000),
}
HUB = {
    "openai/clip-vit-base-patch32+HuggingFaceTB/SmolLM2-135M-Instruct": "llava_smollm2_135m",
    "openai/clip-vit-large-patch14-336+mistralai/Mistral-7B-Instruct-v0.2": "llava_mistral_7b",
    "llava-hf/llava-1.5-7b-hf": "llava_1.5_7b",
    "llava-hf/llava-1.5-13b-hf": "llava_1.5_13b",
}
