"""Model shapes from a Hugging Face config.json.

Defaults that the file leaves out are transformers' own: its config classes fill them in. What
our models do not have is refused by name, never ignored.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tga_jax.errors import UserError
from tga_jax.files import read_json
from tga_jax.hf.config_part import Part
from tga_jax.hf.decoders import DECODERS, read_decoder
from tga_jax.hf.kinds import expect_kind
from tga_jax.hf.llavas import LLAVAS, read_tiling
from tga_jax.hf.towers import TOWERS, read_vision
from tga_jax.models.config import ClipConfig, DecoderConfig, LlavaConfig, TextConfig, VisionConfig

Json = dict[str, Any]


def read_llava_config(folder: Path) -> LlavaConfig:
    """The shapes of a folder of one of the classes in `llavas.LLAVAS`.

    Raises:
        UserError: no config.json, a broken one, or a model that we do not have.
    """
    return llava_config(read_config_json(folder), file=Path(folder) / "config.json")


def read_vision_config(folder: Path) -> VisionConfig:
    """The shapes of a vision tower's folder, or of a CLIP's or SigLIP's; errors as above."""
    file = Path(folder) / "config.json"
    return read_vision(Part(_filled(parse_vision(folder), file, ""), file))


def read_decoder_config(folder: Path) -> DecoderConfig:
    """The shapes of a causal language model's folder as a LLaVA's decoder; errors as above."""
    config = decoder_config(_decoder_json(folder), file=Path(folder) / "config.json")
    return dataclasses.replace(config, logit_softcap=None)


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
    return {"vision_config": parse_vision(vision), "text_config": _decoder_json(llm)}


def llava_config(content: Json, *, file: Path) -> LlavaConfig:
    """The shapes in a LLaVA config.json's content; `file` is named in errors."""
    expect_kind(content, "llava", file=file)
    _refuse_quantised(content, file)
    for key in ("vision_config", "text_config"):
        if not isinstance(content.get(key, {}), dict):
            raise UserError(f"{file}: {key} is not an object; repair it")
    kind = LLAVAS[content["model_type"]]
    _expect(content.get("vision_config", {}), TOWERS, kind.tower, file, "vision_config.")
    _expect(content.get("text_config", {}), DECODERS, kind.decoder, file, "text_config.")
    full = _filled(content, file, "")
    top = Part(full, file)
    layer = full.vision_feature_layer
    activations = {"gelu": "mlp2x_gelu", "linear": "linear"}
    text = Part(full.text_config, file, "text_config.")
    decoder = read_decoder(text, tied=full.tie_word_embeddings)
    vision = read_vision(Part(full.vision_config, file, "vision_config."))
    config = LlavaConfig(
        vision=vision,
        # LLaVAs have the language model's blocks and a head of its own.
        decoder=dataclasses.replace(decoder, logit_softcap=None),
        image_token=full.image_token_index,
        projector=activations[top.one_of("projector_hidden_act", activations)],
        projector_bias=full.multimodal_projector_bias,
        feature_layer=layer if isinstance(layer, int) else tuple(layer),
        feature_select=top.one_of("vision_feature_select_strategy", ("default", "full")),
        tiling=read_tiling(top, vision),
    )
    _check_ranges(config, file)
    return config


def decoder_config(content: Json, *, file: Path) -> DecoderConfig:
    """The shapes in a language model's config.json; `file` is named in errors."""
    full = _filled(content, file, "")
    return read_decoder(Part(full, file), tied=full.tie_word_embeddings)


def clip_config(content: Json, *, file: Path) -> ClipConfig:
    """The shapes in a CLIPModel's config.json; `file` is named in errors."""
    expect_kind(content, "clip", file=file)
    _refuse_quantised(content, file)
    full = _filled(content, file, "")
    text = full.text_config
    if not isinstance(text.eos_token_id, int):
        raise UserError(f"{file}: text_config.eos_token_id {text.eos_token_id} is not one number")
    return ClipConfig(
        vision=read_vision(Part(full.vision_config, file, "vision_config.")),
        text=TextConfig(
            vocab=text.vocab_size,
            length=text.max_position_embeddings,
            width=text.hidden_size,
            layers=text.num_hidden_layers,
            heads=text.num_attention_heads,
            ffn=text.intermediate_size,
            end_token=text.eos_token_id,
            activation=Part(text, file, "text_config.").one_of(
                "hidden_act", ("quick_gelu", "gelu")
            ),
            norm_eps=text.layer_norm_eps,
        ),
        embedding=full.projection_dim,
        logit_scale=full.logit_scale_init_value,
    )


def _check_ranges(config: LlavaConfig, file: Path) -> None:
    states = config.vision.layers + 1
    try:
        config.feature_states  # noqa: B018
    except ValueError:
        raise UserError(
            f"{file}: vision_feature_layer {config.feature_layer} of a tower with"
            f" {config.vision.layers} layers; give one, or several, from {-states} to {states - 1}"
        ) from None
    token = config.image_token
    if not isinstance(token, int) or not 0 <= token < config.decoder.vocab:
        raise UserError(
            f"{file}: image_token_index {config.image_token} is not below vocab_size"
            f" {config.decoder.vocab}"
        )


def parse_vision(folder: Path) -> Json:
    """The vision_config of a vision tower's folder, or of a CLIP's or SigLIP's; errors as above."""
    content = read_config_json(folder)
    file = Path(folder) / "config.json"
    expect_kind(content, "clip", "siglip", "tower", file=file)
    _refuse_quantised(content, file)
    if content["model_type"] in TOWERS:
        return content
    # Old CLIP files repeat the tower as vision_config_dict; transformers merges the two.
    tower = _filled(content, file, "").vision_config.to_dict()
    return tower | {"model_type": f"{content['model_type']}_vision_model"}


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


def _expect(content: Json, allowed: Iterable[str], default: str, file: Path, prefix: str) -> None:
    """Refuse another architecture; a type left out means transformers' default."""
    value = content.get("model_type", default)
    if value not in allowed:
        raise UserError(
            f"{file}: {prefix}model_type {value!r} is not supported here; one of "
            f"{', '.join(allowed)} is"
        )


def _refuse_quantised(content: Json, file: Path) -> None:
    if content.get("quantization_config"):
        raise UserError(
            f"{file}: quantization_config: quantised weights are not supported;"
            " give a float32, float16 or bfloat16 checkpoint"
        )
