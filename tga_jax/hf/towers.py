"""The vision towers that we have: what each kind's config.json says of a `VisionConfig`.

One more is an entry in `TOWERS`, a tensor or two in `names.py`, and a tower in tests/hf_models.py.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from tga_jax.hf.config_part import Part
from tga_jax.models.config import VisionConfig

Json = dict[str, Any]
ACTIVATIONS = ("quick_gelu", "gelu", "gelu_pytorch_tanh")


@dataclasses.dataclass(frozen=True)
class TowerKind:
    """A kind of vision tower; a key of `TOWERS` is its model type.

    Attributes:
        name: for the documentation.
        models: published models of the kind, likewise.
        fields: of `VisionConfig`, the same for all models of the kind.
        keys: of config.json, likewise.
    """

    name: str
    models: str
    fields: Json
    keys: Json


TOWERS: dict[str, TowerKind] = {
    "clip_vision_model": TowerKind("CLIP", "OpenAI's CLIP ViT, LAION's in its format", {}, {}),
    "siglip_vision_model": TowerKind(
        "SigLIP",
        "SigLIP, and SigLIP 2 of fixed resolution",
        {"class_token": False, "pre_norm": False, "patch_bias": True},
        {"vision_use_head": False},  # the head makes one vector of an image, which LLaVA is not of
    ),
}


def read_vision(part: Part) -> VisionConfig:
    """The shapes in a vision tower's configuration.

    Raises:
        UserError: it asks for what we do not have.
    """
    values = part.values
    part.check_sizes("image_size", "patch_size")
    part.check_eps("layer_norm_eps")
    part.one_of("num_channels", (3,))
    if values.patch_size > values.image_size:
        raise part.error(
            f"patch_size {values.patch_size} is more than image_size {values.image_size}"
        )
    return VisionConfig(
        image_size=values.image_size,
        patch_size=values.patch_size,
        width=values.hidden_size,
        layers=values.num_hidden_layers,
        heads=values.num_attention_heads,
        ffn=values.intermediate_size,
        activation=part.one_of("hidden_act", ACTIVATIONS),
        norm_eps=values.layer_norm_eps,
        **TOWERS[values.model_type].fields,
    )


def write_vision(cfg: VisionConfig, model_type: str = "clip_vision_model") -> Json:
    """The keys of config.json of a vision tower of this type."""
    return {
        "model_type": model_type,
        "image_size": cfg.image_size,
        "patch_size": cfg.patch_size,
        "hidden_size": cfg.width,
        "num_hidden_layers": cfg.layers,
        "num_attention_heads": cfg.heads,
        "num_channels": 3,
        "intermediate_size": cfg.ffn,
        "hidden_act": cfg.activation,
        "layer_norm_eps": cfg.norm_eps,
        **TOWERS[model_type].keys,
    }
