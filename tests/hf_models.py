"""Tiny Hugging Face checkpoints with random weights, made by transformers, for tests."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import torch
import transformers
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors.numpy import load_file, save_file

from tga_jax.hf.config import read_llava_config
from tga_jax.hf.weights import load_weights
from tga_jax.models.config import Compute
from tga_jax.models.llava import Llava, PixelNorm

IMAGE_TOKEN = 5
CLIP_NORM = PixelNorm((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}

YARN = {
    "rope_type": "yarn",
    "rope_theta": 10000.0,
    "factor": 4.0,
    "original_max_position_embeddings": 64,
}
GEMMA = {"num_key_value_heads": 2, "head_dim": 12, "sliding_window": 7, "pad_token_id": 0}

# Resolutions for a tower of 32 pixels; the last one has more tiles than OneVision's four.
PINPOINTS = [[32, 64], [64, 32], [64, 64], [96, 32], [32, 96], [96, 96]]

# kind -> config class, and what differs from its defaults
KINDS: dict[str, tuple[type, dict[str, Any]]] = {
    "llama": (transformers.LlamaConfig, {}),
    "llama_biased": (transformers.LlamaConfig, {"attention_bias": True, "mlp_bias": True}),
    "llama_gqa_rope": (
        transformers.LlamaConfig,
        {"num_key_value_heads": 2, "rope_parameters": LLAMA3_ROPE, "rms_norm_eps": 1e-5},
    ),
    "llama_linear_rope": (
        transformers.LlamaConfig,
        {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0}},
    ),
    "mistral": (
        transformers.MistralConfig,
        {
            "num_key_value_heads": 2,
            "sliding_window": None,
            "head_dim": 12,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
        },
    ),
    "mistral_window": (
        transformers.MistralConfig,
        {"num_key_value_heads": 2, "sliding_window": 7},
    ),
    "qwen2_tied": (
        transformers.Qwen2Config,
        {"num_key_value_heads": 2, "tie_word_embeddings": True},
    ),
    "qwen2_mixed_windows": (  # the last block has one
        transformers.Qwen2Config,
        {"use_sliding_window": True, "sliding_window": 7, "max_window_layers": 2},
    ),
    "qwen2_yarn": (
        transformers.Qwen2Config,
        {"num_key_value_heads": 2, "rope_parameters": YARN},
    ),
    "llama_dynamic_rope": (  # texts are longer than its 16 tokens
        transformers.LlamaConfig,
        {
            "max_position_embeddings": 16,
            "rope_parameters": {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10000.0},
        },
    ),
    "qwen3": (transformers.Qwen3Config, {"num_key_value_heads": 2, "head_dim": 12}),
    "phi3": (transformers.Phi3Config, {"num_key_value_heads": 2, "pad_token_id": 0}),
    "gemma2": (
        transformers.Gemma2Config,
        GEMMA
        | {
            "query_pre_attn_scalar": 9,
            "attn_logit_softcapping": 2.0,
            "final_logit_softcapping": 3.0,
        },
    ),
    "gemma3": (
        transformers.Gemma3TextConfig,
        GEMMA
        | {
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
            "query_pre_attn_scalar": 12,
            "rope_parameters": {
                "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
                "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
            },
        },
    ),
}


def text_config(kind: str, *, vocab: int = 128, layers: int = 3, **overrides: Any) -> Any:
    """A tiny config of a decoder."""
    cls, settings = KINDS[kind]
    tiny = {
        "vocab_size": vocab,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "max_position_embeddings": 256,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    return cls(**tiny | settings | overrides)


def vision_config(
    *, layers: int = 3, activation: str = "quick_gelu", image_size: int = 32, patch_size: int = 8
) -> transformers.CLIPVisionConfig:
    """A tiny config of a CLIP tower."""
    return transformers.CLIPVisionConfig(
        hidden_size=24,
        intermediate_size=40,
        num_hidden_layers=layers,
        num_attention_heads=3,
        image_size=image_size,
        patch_size=patch_size,
        projection_dim=16,
        hidden_act=activation,
    )


def siglip_config(**settings: Any) -> transformers.SiglipVisionConfig:
    """A tiny config of a SigLIP tower, without its pooling head."""
    tiny = {
        "hidden_size": 24,
        "intermediate_size": 40,
        "num_hidden_layers": 3,
        "num_attention_heads": 3,
        "image_size": 32,
        "patch_size": 8,
        "vision_use_head": False,
    }
    return transformers.SiglipVisionConfig(**tiny | settings)


def tiny_siglip(folder: Path, *, seed: int = 0) -> Any:
    """Save a tiny SiglipModel (both halves, and a head) to a folder, and return it."""
    text = {"vocab_size": 64, "hidden_size": 24, "intermediate_size": 32}
    layers = {"num_hidden_layers": 2, "num_attention_heads": 2}
    vision = siglip_config(vision_use_head=True).to_dict()
    config = transformers.SiglipConfig(text_config=text | layers, vision_config=vision)
    return _save(transformers.SiglipModel(config), folder, seed, "float32")


def tiny_llava(
    folder: Path,
    kind: str = "llama",
    *,
    seed: int = 0,
    dtype: str = "float32",
    image_token: int = IMAGE_TOKEN,
    feature_layer: int | list[int] = -2,
    feature_select: str = "default",
    vision: Any = None,
    **text: Any,
) -> transformers.LlavaForConditionalGeneration:
    """Save a tiny LlavaForConditionalGeneration to a folder, and return it (in eval mode)."""
    decoder = text_config(kind, **text)
    vision = vision or vision_config()
    patches = (vision.image_size // vision.patch_size) ** 2
    config = transformers.LlavaConfig(
        vision_config=vision,
        text_config=decoder,
        image_token_index=image_token,
        image_seq_length=patches
        + hasattr(vision, "projection_dim")
        - (feature_select == "default"),
        vision_feature_layer=feature_layer,
        vision_feature_select_strategy=feature_select,
        tie_word_embeddings=decoder.tie_word_embeddings,
    )
    return _save(transformers.LlavaForConditionalGeneration(config), folder, seed, dtype)


def tiny_tiled(
    folder: Path,
    name: str = "LlavaNext",
    kind: str = "mistral",
    *,
    seed: int = 0,
    image_token: int = IMAGE_TOKEN,
    pinpoints: list[list[int]] | None = None,
    vision: Any = None,
    settings: dict[str, Any] | None = None,
    **text: Any,
) -> Any:
    """Save a tiny LlavaNext- or LlavaOnevisionForConditionalGeneration, and return it.

    Each of `settings` overrides one of the configuration; OneVision's tower is a SigLIP.
    """
    decoder = text_config(kind, **text)
    onevision = name == "LlavaOnevision"
    own = {"vision_aspect_ratio": "anyres_max_4"} if onevision else {"image_seq_length": 16}
    config = getattr(transformers, f"{name}Config")(
        vision_config=vision or (siglip_config() if onevision else vision_config()),
        text_config=decoder,
        image_token_index=image_token,
        image_grid_pinpoints=pinpoints or PINPOINTS,
        tie_word_embeddings=decoder.tie_word_embeddings,
        **own | (settings or {}),
    )
    model = getattr(transformers, f"{name}ForConditionalGeneration")(config)
    return _save(model, folder, seed, "float32")


def write_tile_processor(folder: Path, name: str = "LlavaNext") -> None:
    """The preprocessor_config.json of a tiny model in tiles, as published files have it."""
    side = {"height": 32, "width": 32}
    content: dict[str, Any] = {
        "image_processor_type": f"{name}ImageProcessor",
        "do_pad": True,
        "image_grid_pinpoints": PINPOINTS,
    }
    if name == "LlavaNext":
        content |= {"size": {"shortest_edge": 32}, "crop_size": side}
    else:
        content |= {"size": side, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (folder / "preprocessor_config.json").write_text(json.dumps(content))


def tiny_llm(
    folder: Path, kind: str = "llama", *, seed: int = 0, dtype: str = "float32", **text: Any
) -> Any:
    """Save a tiny causal language model to a folder, and return it."""
    model = transformers.AutoModelForCausalLM.from_config(text_config(kind, **text))
    return _save(model, folder, seed, dtype)


def tiny_clip(folder: Path, *, seed: int = 0, dtype: str = "float32", **vision: Any) -> Any:
    """Save a tiny CLIPModel (both halves) to a folder, and return it."""
    config = transformers.CLIPConfig(
        vision_config=vision_config(**vision).to_dict(),
        text_config={
            "vocab_size": 64,
            "hidden_size": 16,
            "intermediate_size": 24,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
        },
        projection_dim=16,
    )
    return _save(transformers.CLIPModel(config), folder, seed, dtype)


def tiny_clip_vision(folder: Path, *, seed: int = 0, **vision: Any) -> Any:
    """Save a tiny CLIPVisionModel to a folder, and return it."""
    return _save(transformers.CLIPVisionModel(vision_config(**vision)), folder, seed, "float32")


def import_llava(
    folder: Path, *, dtype: str = "float32", compute: Compute | None = None
) -> tuple[Llava, dict[str, Any]]:
    """A folder as our model and its parameters (a nested dict), on one device."""
    model, flat = import_flat(folder, dtype=dtype)
    model = dataclasses.replace(model, compute=compute or Compute())
    return model, unflatten_dict(flat, sep="/")


def import_flat(folder: Path, *, dtype: str = "float32") -> tuple[Llava, dict[str, jax.Array]]:
    """The same with parameters by flat path."""
    model = Llava(read_llava_config(folder), CLIP_NORM)
    return model, load_weights(folder, leaves_of(model, dtype=dtype), family="llava")


def rewrite(folder: Path, change: Callable[[dict[str, Any]], dict[str, Any] | None]) -> None:
    """Changes the tensors of a checkpoint: `change` does so in place, or returns others."""
    file = folder / "model.safetensors"
    tensors = load_file(file)
    save_file(change(tensors) or tensors, file, metadata={"format": "pt"})


def leaves_of(
    model: Llava, *, dtype: str = "float32", part: str = ""
) -> dict[str, jax.ShapeDtypeStruct]:
    """What `load_weights` is to fill, all on one device; `part`, such as "vision/": only those."""
    boxed = jax.eval_shape(model.init, jax.random.key(0))
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return {
        path: jax.ShapeDtypeStruct(leaf.shape, dtype, sharding=device)
        for path, leaf in flatten_dict(nn.meta.unbox(boxed), sep="/").items()
        if path.startswith(part) and "lora_" not in path
    }


def _save(model: Any, folder: Path, seed: int, dtype: str) -> Any:
    randomize(model, seed)
    model.eval().to(getattr(torch, dtype)).save_pretrained(folder)
    model.set_attn_implementation("eager")
    return model


def randomize(model: torch.nn.Module, seed: int) -> None:
    """Values that make every parameter count: initial ones leave biases 0 and attention flat."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in model.named_parameters():
        noise = torch.randn(value.shape, generator=generator)
        with torch.no_grad():
            if value.ndim < 2:
                value.copy_(0.3 * noise + (1.0 if "norm" in name and "bias" not in name else 0.0))
            elif "embed" in name and value.ndim == 2:
                value.copy_(noise)
            else:
                value.copy_(1.5 * noise / value[0].numel() ** 0.5)
