"""The classes of LLaVA that we have: what a config.json says of each beyond tower and decoder.

One more is an entry in `LLAVAS`, and a model in tests/hf_models.py.
"""

from __future__ import annotations

import dataclasses
import re
from typing import Any

from tga_jax.hf.config_part import Part
from tga_jax.models.config import LlavaConfig, Tiling, VisionConfig

Json = dict[str, Any]
MAX_SIDE = 20_000  # pixels of a resolution; no model has one beyond


@dataclasses.dataclass(frozen=True)
class LlavaKind:
    """A class of LLaVA; a key of `LLAVAS` is its model type.

    Attributes:
        name: of transformers' classes, before "ForConditionalGeneration" and "Processor".
        models: published models of the kind, for the documentation.
        images: how images are prepared, likewise.
        decoder: the model type of a language model that config.json does not name.
        tower: likewise of the vision tower.
    """

    name: str
    models: str
    images: str
    decoder: str = "llama"
    tower: str = "clip_vision_model"

    @property
    def architecture(self) -> str:
        """transformers' class of the model."""
        return f"{self.name}ForConditionalGeneration"


LLAVAS: dict[str, LlavaKind] = {
    "llava": LlavaKind("Llava", "LLaVA-1.5 and its children, BakLLaVA", "one tile"),
    "llava_next": LlavaKind(
        "LlavaNext",
        "LLaVA-1.6 (NeXT)",
        "tiles by `image_grid_pinpoints`, unpadded, with newlines",
    ),
    "llava_onevision": LlavaKind(
        "LlavaOnevision",
        "LLaVA-OneVision, LlavaGuard 1.2",
        "the same; large grids merged bilinearly (`vision_aspect_ratio` anyres_max_N). One image a "
        "sample, no videos",
        decoder="qwen2",
        tower="siglip_vision_model",
    ),
}


def llava_type(config: LlavaConfig) -> str:
    """The model type of LLaVAs of these shapes: a key of `LLAVAS`."""
    if config.tiling is None:
        return "llava"
    return "llava_next" if config.tiling.most is None else "llava_onevision"


def read_tiling(top: Part, vision: VisionConfig) -> Tiling | None:
    """How the model of a configuration takes images; None: each as one tile.

    Raises:
        UserError: its resolutions are no grids of the tower's tiles, or it merges in another way.
    """
    model_type = top.values.model_type
    if model_type == "llava":
        return None
    _check_tower(top, vision)
    most = None
    if model_type == "llava_onevision":
        given = top.values.vision_aspect_ratio
        found = re.fullmatch(r"anyres_max_([1-9]\d{0,2})", str(given))
        if found is None:
            raise top.error(f"vision_aspect_ratio {given!r} is not supported; anyres_max_N is")
        most = int(found[1])
    pinpoints = top.values.image_grid_pinpoints
    if not pinpoints or not all(_is_grid(point, vision.image_size) for point in pinpoints):
        raise top.error(
            f"image_grid_pinpoints {pinpoints!r:.60} must be pairs of height and width that are "
            f"multiples of the tower's {vision.image_size} pixels"
        )
    return Tiling(tuple((height, width) for height, width in pinpoints), most)


def write_tiling(config: LlavaConfig) -> Json:
    """The inverse of `read_tiling`: the keys of config.json."""
    if config.tiling is None:
        return {}
    found: Json = {"image_grid_pinpoints": [list(point) for point in config.tiling.pinpoints]}
    if config.tiling.most is not None:
        found["vision_aspect_ratio"] = f"anyres_max_{config.tiling.most}"
    return found


def _check_tower(top: Part, vision: VisionConfig) -> None:
    """A tile's features must be its patches, a square of them."""
    wanted = "default" if vision.class_token else "full"
    if top.values.vision_feature_select_strategy != wanted:
        raise top.error(
            f"vision_feature_select_strategy must be {wanted!r} for images in tiles, with a tower "
            f"{'with' if vision.class_token else 'without'} a class token"
        )


def _is_grid(point: Any, side: int) -> bool:
    return (
        isinstance(point, list | tuple)
        and len(point) == 2
        and all(
            isinstance(length, int) and 0 < length <= MAX_SIDE and length % side == 0
            for length in point
        )
    )
