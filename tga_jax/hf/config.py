"""Model shapes from a Hugging Face config.json.

Defaults that the file leaves out are transformers' own: its config classes fill them in. What
our models do not have is refused by name, never ignored.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tga_jax.errors import UserError
from tga_jax.files import read_json
from tga_jax.hf.config_checks import check_decoder, check_vision
from tga_jax.hf.kinds import DECODERS, TOWERS, expect_kind
from tga_jax.models.config import (
    ClipConfig,
    DecoderConfig,
    LlavaConfig,
    RopeScaling,
    TextConfig,
    VisionConfig,
)

Json = dict[str, Any]


def read_llava_config(folder: Path) -> LlavaConfig:
    """The shapes of a LlavaForConditionalGeneration folder.

    Raises:
        UserError: no config.json, a broken one, or a model that we do not have.
    """
    return llava_config(read_config_json(folder), file=Path(folder) / "config.json")


def read_vision_config(folder: Path) -> VisionConfig:
    """The shapes of the vision half of a CLIPModel or CLIPVisionModel folder; errors as above."""
    file = Path(folder) / "config.json"
    return _vision(_filled(_vision_json(folder), file, ""), file, "")


def read_clip_config(folder: Path) -> ClipConfig:
    """The shapes of both halves of a CLIPModel folder; errors as above."""
    return clip_config(read_config_json(folder), file=Path(folder) / "config.json")


def read_decoder_config(folder: Path) -> DecoderConfig:
    """The shapes of a Llama-, Mistral- or Qwen2ForCausalLM folder; errors as above."""
    return decoder_config(_decoder_json(folder), file=Path(folder) / "config.json")


def read_config_json(folder: Path) -> Json:
    """The content of a folder's config.json.

    Raises:
        UserError: there is none, or it is not a JSON object.
    """
    file = Path(folder) / "config.json"
    if not file.exists():
        raise UserError(f"{file}: not found; give a Hugging Face checkpoint folder")
    content = read_json(file, advice="repair it")
    if not isinstance(content, dict):
        raise UserError(f"{file}: not a JSON object; repair it")
    return content


def parts_json(*, vision: Path, llm: Path) -> Json:
    """The source dict of `to_hf_config` for a model put together from two folders."""
    return {"vision_config": _vision_json(vision), "text_config": _decoder_json(llm)}


def llava_config(content: Json, *, file: Path) -> LlavaConfig:
    """The shapes in a LLaVA config.json's content; `file` is named in errors."""
    expect_kind(content, "llava", file=file)
    _refuse_quantised(content, file)
    for key in ("vision_config", "text_config"):
        if not isinstance(content.get(key, {}), dict):
            raise UserError(f"{file}: {key} is not an object; repair it")
    _expect(content.get("vision_config", {}), "model_type", TOWERS, file, "vision_config.")
    _expect(content.get("text_config", {}), "model_type", DECODERS, file, "text_config.")
    full = _filled(content, file, "")
    layer = full.vision_feature_layer
    if not isinstance(layer, int):
        raise UserError(f"{file}: vision_feature_layer {layer} is a list; only one layer will do")
    activations = {"gelu": "mlp2x_gelu", "linear": "linear"}
    config = LlavaConfig(
        vision=_vision(full.vision_config, file, "vision_config."),
        decoder=_decoder(full.text_config, file, "text_config.", tied=full.tie_word_embeddings),
        image_token=full.image_token_index,
        projector=activations[_one_of(full, "projector_hidden_act", activations, file, "")],
        projector_bias=full.multimodal_projector_bias,
        feature_layer=layer,
        feature_select=_one_of(
            full, "vision_feature_select_strategy", ("default", "full"), file, ""
        ),
    )
    _check_ranges(config, file)
    return config


def decoder_config(content: Json, *, file: Path) -> DecoderConfig:
    """The shapes in a language model's config.json; `file` is named in errors."""
    return _decoder(_filled(content, file, ""), file, "")


def clip_config(content: Json, *, file: Path) -> ClipConfig:
    """The shapes in a CLIPModel's config.json; `file` is named in errors."""
    expect_kind(content, "clip", file=file)
    _refuse_quantised(content, file)
    full = _filled(content, file, "")
    text = full.text_config
    if not isinstance(text.eos_token_id, int):
        raise UserError(f"{file}: text_config.eos_token_id {text.eos_token_id} is not one number")
    return ClipConfig(
        vision=_vision(full.vision_config, file, "vision_config."),
        text=TextConfig(
            vocab=text.vocab_size,
            length=text.max_position_embeddings,
            width=text.hidden_size,
            layers=text.num_hidden_layers,
            heads=text.num_attention_heads,
            ffn=text.intermediate_size,
            end_token=text.eos_token_id,
            activation=_one_of(text, "hidden_act", ("quick_gelu", "gelu"), file, "text_config."),
            norm_eps=text.layer_norm_eps,
        ),
        embedding=full.projection_dim,
        logit_scale=full.logit_scale_init_value,
    )


def _check_ranges(config: LlavaConfig, file: Path) -> None:
    states = config.vision.layers + 1
    if not -states <= config.feature_layer < states:
        raise UserError(
            f"{file}: vision_feature_layer {config.feature_layer} of a tower with"
            f" {config.vision.layers} layers; give one from {-states} to {states - 1}"
        )
    token = config.image_token
    if not isinstance(token, int) or not 0 <= token < config.decoder.vocab:
        raise UserError(
            f"{file}: image_token_index {config.image_token} is not below vocab_size"
            f" {config.decoder.vocab}"
        )


def _vision_json(folder: Path) -> Json:
    content = read_config_json(folder)
    file = Path(folder) / "config.json"
    expect_kind(content, "clip", "tower", file=file)
    _refuse_quantised(content, file)
    if content.get("model_type") != "clip":
        return content
    # Old CLIP files repeat the tower as vision_config_dict; transformers merges the two.
    tower = _filled(content, file, "").vision_config.to_dict()
    return tower | {"model_type": "clip_vision_model"}


def _decoder_json(folder: Path) -> Json:
    content = read_config_json(folder)
    file = Path(folder) / "config.json"
    expect_kind(content, "decoder", file=file)
    _refuse_quantised(content, file)
    return content


def _filled(content: Json, file: Path, prefix: str) -> Any:
    """transformers' config object for the content, with its defaults."""
    from transformers import CONFIG_MAPPING

    content = json.loads(json.dumps(content))  # transformers changes what it is given
    try:
        return CONFIG_MAPPING[content["model_type"]].from_dict(content)
    except Exception as error:  # its validators raise errors of several kinds
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = "; ".join(lines)[:300] or type(error).__name__
        raise UserError(f"{file}: {prefix}transformers refuses it: {reason}") from None


def _vision(full: Any, file: Path, prefix: str) -> VisionConfig:
    check_vision(full, file, prefix)
    _one_of(full, "num_channels", (3,), file, prefix)
    return VisionConfig(
        image_size=full.image_size,
        patch_size=full.patch_size,
        width=full.hidden_size,
        layers=full.num_hidden_layers,
        heads=full.num_attention_heads,
        ffn=full.intermediate_size,
        activation=_one_of(full, "hidden_act", ("quick_gelu", "gelu"), file, prefix),
        norm_eps=full.layer_norm_eps,
    )


def _decoder(full: Any, file: Path, prefix: str, tied: bool | None = None) -> DecoderConfig:
    _one_of(full, "hidden_act", ("silu",), file, prefix)
    check_decoder(full, file, prefix)
    if "rope_theta" not in full.rope_parameters:
        raise UserError(f"{file}: {prefix}rope_parameters a layer type are not supported")
    llama, qwen = full.model_type == "llama", full.model_type == "qwen2"
    heads = full.num_attention_heads
    return DecoderConfig(
        vocab=full.vocab_size,
        width=full.hidden_size,
        layers=full.num_hidden_layers,
        heads=heads,
        kv_heads=full.num_key_value_heads,
        head_dim=getattr(full, "head_dim", None) or full.hidden_size // heads,
        ffn=full.intermediate_size,
        rope_theta=float(full.rope_parameters["rope_theta"]),
        rope_scaling=_rope_scaling(full.rope_parameters, file, prefix),
        norm_eps=full.rms_norm_eps,
        qkv_bias=qwen or (llama and full.attention_bias),
        out_bias=llama and full.attention_bias,
        mlp_bias=llama and full.mlp_bias,
        tied_head=full.tie_word_embeddings if tied is None else tied,
        window=_window(full, file, prefix),
    )


def _rope_scaling(rope: Json, file: Path, prefix: str) -> RopeScaling | None:
    partial = rope.get("partial_rotary_factor", 1.0)
    if partial != 1.0:
        raise UserError(f"{file}: {prefix}partial_rotary_factor {partial} is not supported")
    kind = rope["rope_type"]
    if kind == "default":
        return None
    if kind == "linear":
        return RopeScaling("linear", float(rope["factor"]))
    if kind == "llama3":
        return RopeScaling(
            "llama3",
            float(rope["factor"]),
            float(rope["low_freq_factor"]),
            float(rope["high_freq_factor"]),
            int(rope["original_max_position_embeddings"]),
        )
    raise UserError(
        f"{file}: {prefix}rope_type {kind!r} is not supported; only default, linear and llama3 are"
    )


def _window(full: Any, file: Path, prefix: str) -> int | None:
    """Keys a query sees; transformers' Mistral and Qwen2 mean q - k < window, as we do."""
    if full.model_type == "llama":
        return None
    if full.model_type == "qwen2":
        kinds = set(full.layer_types)
        if kinds == {"full_attention"}:
            return None
        if kinds != {"sliding_attention"}:
            raise UserError(
                f"{file}: {prefix}layer_types / max_window_layers mix windowed and full"
                " attention, which is not supported; set use_sliding_window to false"
            )
    return full.sliding_window


def _expect(content: Json, key: str, allowed: tuple[str, ...], file: Path, prefix: str) -> None:
    """Refuse another architecture; a key left out means transformers' default."""
    defaults = {"text_config.": "llama", "vision_config.": "clip_vision_model"}
    value = content.get(key, defaults.get(prefix))
    if value not in allowed:
        raise UserError(
            f"{file}: {prefix}{key} {value!r} is not supported here; one of {', '.join(allowed)} is"
        )


def _one_of(full: Any, key: str, allowed: Iterable[Any], file: Path, prefix: str) -> Any:
    value = getattr(full, key)
    if value not in allowed:
        choice = ", ".join(str(a) for a in allowed)
        raise UserError(f"{file}: {prefix}{key} {value!r} is not supported; one of {choice} is")
    return value


def _refuse_quantised(content: Json, file: Path) -> None:
    if content.get("quantization_config"):
        raise UserError(
            f"{file}: quantization_config: quantised weights are not supported;"
            " give a float32, float16 or bfloat16 checkpoint"
        )
