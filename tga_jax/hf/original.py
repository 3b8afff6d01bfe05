"""Checkpoints in the layout of the LLaVA repository (haotian-liu/LLaVA and LLaVA-NeXT): reading.

Their config.json is the language model's, with mm_* keys. The vision tower is named by
`mm_vision_tower`; its weights may be in the checkpoint too.
"""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

from tga_jax.errors import UserError
from tga_jax.hf.config import parse_vision, read_config_json
from tga_jax.hf.hub import resolve_checkpoint
from tga_jax.hf.tensor_files import stored_tensors

Json = dict[str, Any]

# class -> the type of its language model
CLASSES = {
    "LlavaLlamaForCausalLM": "llama",
    "LlavaMistralForCausalLM": "mistral",
    "LlavaQwenForCausalLM": "qwen2",
}
PROJECTORS = {"linear": "linear", "mlp2x_gelu": "gelu"}
_TOWER_LAYER = re.compile(r"vision_tower\..*encoder\.layers\.(\d+)\.")


@dataclasses.dataclass(frozen=True)
class Original:
    """A checkpoint in that layout.

    Attributes:
        config: the config.json of the same model as a LlavaForConditionalGeneration; its image
            token is still to be filled in.
        tower: the vision tower's folder.
        tower_inside: the tower's weights are the checkpoint's own.
        pad_to_square: images are padded to squares first.
    """

    config: Json
    tower: Path
    tower_inside: bool
    pad_to_square: bool


def read_original(folder: Path) -> Original:
    """What the folder's config.json says.

    Raises:
        UserError: it asks for what we do not have, or its vision tower is nowhere.
    """
    content, file = read_config_json(folder), folder / "config.json"
    text_type = _check(content, file)
    tower = _tower(folder, content, file)
    layers = _tower_layers(folder)
    vision = parse_vision(tower)
    layer, select = content.get("mm_vision_select_layer", -2), _select(content, file)
    if vision["model_type"] == "siglip_vision_model":
        # LLaVA-NeXT's code takes all patches behind the last block but one, whatever the keys say.
        layer, select = -2, "full"
        if layers:
            layer = vision["num_hidden_layers"] - 2 - layers
    config = {
        "architectures": ["LlavaForConditionalGeneration"],
        "model_type": "llava",
        "text_config": _text_config(content, text_type),
        "tie_word_embeddings": content.get("tie_word_embeddings", False),
        "vision_config": vision | ({"num_hidden_layers": layers} if layers else {}),
        "projector_hidden_act": PROJECTORS[content.get("mm_projector_type", "linear")],
        "vision_feature_layer": layer,
        "vision_feature_select_strategy": select,
    }
    return Original(config, tower, layers > 0, content.get("image_aspect_ratio") == "pad")


def _check(content: Json, file: Path) -> str:
    """The language model's type; refuses what we do not have."""
    name = (content.get("architectures") or [""])[0]
    if name not in CLASSES:
        raise UserError(f"{file}: {name or 'no class'} is not supported; one of {_all(CLASSES)} is")
    allowed = {
        "mm_use_im_start_end": (False, None),
        "mm_projector_type": (*PROJECTORS, None),
        "image_aspect_ratio": ("pad", "square", None),
        "quantization_config": (None,),
    }
    for key, values in allowed.items():
        if content.get(key) not in values:
            raise UserError(
                f"{file}: {key} {content[key]!r} is not supported; one of {_all(values)} is"
            )
    return CLASSES[name]


def _all(values: Any) -> str:
    return ", ".join(str(value) for value in values if value is not None) or "none"


def _select(content: Json, file: Path) -> str:
    value = content.get("mm_vision_select_feature", "patch")
    known = {"patch": "default", "cls_patch": "full"}
    if value not in known:
        raise UserError(
            f"{file}: mm_vision_select_feature {value!r} is not supported; one of {_all(known)} is"
        )
    return known[value]


def _tower(folder: Path, content: Json, file: Path) -> Path:
    """A folder, maybe inside the checkpoint's, or a hub id."""
    name = content.get("mm_vision_tower")
    if not isinstance(name, str) or not name:
        raise UserError(f"{file}: has no mm_vision_tower; name the tower's folder or hub id there")
    if (folder / name / "config.json").is_file():
        return folder / name
    try:
        return resolve_checkpoint(name)
    except UserError as error:
        raise UserError(f"{file}: mm_vision_tower: {error}") from None


def _tower_layers(folder: Path) -> int:
    """How many blocks of the tower are among the checkpoint's weights; 0: none of it."""
    alone = folder / "mm_projector.bin"
    if alone.is_file() and not list(folder.glob("*.safetensors")):
        raise UserError(
            f"{alone}: a pickled projector is not read; in LLaVA's repository load it with its"
            " language model (load_pretrained_model with model_base) and save both with"
            " model.save_pretrained(folder, safe_serialization=True)"
        )
    found = [int(m[1]) for name in stored_tensors(folder) if (m := _TOWER_LAYER.search(name))]
    return max(found, default=-1) + 1


def _text_config(content: Json, model_type: str) -> Json:
    """The language model's own keys: those that transformers' class of it knows."""
    from transformers import CONFIG_MAPPING

    own = {*CONFIG_MAPPING[model_type]().to_dict(), "rope_theta", "rope_scaling", "head_dim"}
    own -= {"architectures", "transformers_version", "dtype"}
    kept = {key: value for key, value in content.items() if key in own}
    return kept | {"model_type": model_type}
