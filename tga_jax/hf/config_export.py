"""config.json of an exported model: LLaVA, its language model alone, CLIP."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from tga_jax.hf.config import clip_config, decoder_config, llava_config
from tga_jax.hf.decoders import DECODERS, write_decoder
from tga_jax.hf.llavas import LLAVAS, llava_type, write_tiling
from tga_jax.hf.towers import write_vision
from tga_jax.models.config import ClipConfig, DecoderConfig, LlavaConfig

Json = dict[str, Any]

# What described the source's files and not its model, or is written anew in full.
_STALE = (
    "_name_or_path",
    "auto_map",
    "dtype",
    "image_token_id",
    "layer_types",
    "rope_local_base_freq",
    "rope_parameters",
    "rope_scaling",
    "rope_theta",
    "torch_dtype",
    "transformers_version",
)


def to_hf_config(
    config: LlavaConfig, *, source: Json, dtype: str, pad_token_id: int | None
) -> Json:
    """Content of the config.json with which transformers 4 and 5 load this model.

    Args:
        config: the model; adapters count as merged.
        source: the config.json that the model came from (`read_config_json`), or
            `parts_json`; what ours does not say is kept from it.
        dtype: of the exported weights, such as "bfloat16".
        pad_token_id: of the exported tokenizer.

    Raises:
        ValueError: the source's model type cannot express the model.
    """
    text = _kept(source.get("text_config", {})) | {"pad_token_id": pad_token_id}
    model_type = llava_type(config)
    kind = LLAVAS[model_type]
    ours = write_decoder(config.decoder, text.get("model_type", kind.decoder))
    ours.pop("final_logit_softcapping", None)  # no part of a LLaVA; stays as the source has it
    tower, layer = _kept(source.get("vision_config", {})), config.feature_layer
    tower_type = tower.get("model_type", kind.tower)
    content = _kept(source) | {
        "architectures": [kind.architecture],
        "model_type": model_type,
        "dtype": dtype,
        "image_token_index": config.image_token,
        "image_seq_length": config.image_tokens,  # of a tile; LLaVA-OneVision has no such key
        "multimodal_projector_bias": config.projector_bias,
        "pad_token_id": pad_token_id,
        "projector_hidden_act": "linear" if config.projector == "linear" else "gelu",
        "text_config": text | ours,
        "tie_word_embeddings": config.decoder.tied_head,
        "vision_config": tower | write_vision(config.vision, tower_type),
        "vision_feature_layer": layer if isinstance(layer, int) else list(layer),
        "vision_feature_select_strategy": config.feature_select,
        **write_tiling(config),
    }
    merged = dataclasses.replace(config.decoder, lora=None)
    read_back = llava_config(content, file=Path("config.json"))
    if read_back != dataclasses.replace(config, decoder=merged):
        raise ValueError(f"{content['text_config']['model_type']} cannot express {config}")
    return content


def to_hf_clip_config(config: ClipConfig, *, source: Json, dtype: str) -> Json:
    """Content of the config.json with which transformers' CLIPModel loads this model.

    Args:
        config: the model.
        source: the config.json that it came from, {} for a new one; what ours does not say is
            kept from it.
        dtype: of the exported weights.
    """
    text, vision = source.get("text_config") or {}, source.get("vision_config") or {}
    # Old CLIP files say it all a second time, and transformers would merge that in.
    stale = ("text_config_dict", "vision_config_dict")
    content = {k: v for k, v in _kept(source).items() if k not in stale} | {
        "architectures": ["CLIPModel"],
        "model_type": "clip",
        "dtype": dtype,
        "projection_dim": config.embedding,
        "logit_scale_init_value": config.logit_scale,
        "text_config": _kept(text) | _clip_text_config(config),
        "vision_config": _kept(vision)
        | write_vision(config.vision)
        | {"projection_dim": config.embedding},
    }
    if clip_config(content, file=Path("config.json")) != config:
        raise ValueError(f"a CLIPModel cannot express {config}")
    return content


def _clip_text_config(config: ClipConfig) -> Json:
    text = config.text
    return {
        "model_type": "clip_text_model",
        "vocab_size": text.vocab,
        "max_position_embeddings": text.length,
        "hidden_size": text.width,
        "num_hidden_layers": text.layers,
        "num_attention_heads": text.heads,
        "intermediate_size": text.ffn,
        "eos_token_id": text.end_token,
        "hidden_act": text.activation,
        "layer_norm_eps": text.norm_eps,
        "projection_dim": config.embedding,
    }


def to_hf_decoder_config(
    cfg: DecoderConfig,
    *,
    model_type: str,
    dtype: str,
    length: int,
    bos_token_id: int | None,
    eos_token_id: int,
    pad_token_id: int,
) -> Json:
    """Content of the config.json of a language model on its own.

    Args:
        cfg: the model; adapters count as merged.
        model_type: a key of `decoders.DECODERS`.
        dtype: of the exported weights.
        length: the most tokens that the model is meant for.
        bos_token_id: of the tokenizer, as are the next two.
        eos_token_id: the one that ends an answer.
        pad_token_id: of the padding.

    Raises:
        ValueError: the model type cannot express the model.
    """
    content = write_decoder(cfg, model_type) | {
        "architectures": [f"{DECODERS[model_type].name}ForCausalLM"],
        "dtype": dtype,
        "max_position_embeddings": length,
        "bos_token_id": bos_token_id,
        "eos_token_id": eos_token_id,
        "pad_token_id": pad_token_id,
    }
    if decoder_config(content, file=Path("config.json")) != dataclasses.replace(cfg, lora=None):
        raise ValueError(f"{model_type} cannot express {cfg}")
    return content


def _kept(content: Json) -> Json:
    return {key: value for key, value in content.items() if key not in _STALE}
