"""How images are prepared, as Hugging Face's processor files say it: reading and writing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tga_jax.errors import UserError
from tga_jax.files import read_json
from tga_jax.hf.llavas import LLAVAS, llava_type
from tga_jax.hf.tokenizer import write_json
from tga_jax.models.config import LlavaConfig

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
BICUBIC = 3
MAX_SIDE = 100_000  # pixels
HUGE = 1e9  # no number in these files is as large
LAST_FILTER = 5  # of Pillow's numbers for ways to resize
# Image processor -> what it does where its file leaves a key out.
_CLIP_DEFAULTS = {
    "do_center_crop": True, "size": 224, "image_mean": CLIP_MEAN, "image_std": CLIP_STD,
}  # fmt: skip
DEFAULTS: dict[str, dict[str, Any]] = {
    "CLIPImageProcessor": _CLIP_DEFAULTS,
    "LlavaImageProcessor": _CLIP_DEFAULTS,
    "SiglipImageProcessor": {
        "do_center_crop": False,
        "size": {"height": 224, "width": 224},
        "image_mean": (0.5,) * 3,
        "image_std": (0.5,) * 3,
    },
    "LlavaNextImageProcessor": _CLIP_DEFAULTS | {"crop_size": 224},
    "LlavaOnevisionImageProcessor": _CLIP_DEFAULTS | {"size": {"height": 384, "width": 384}},
}
TILED = ("LlavaNextImageProcessor", "LlavaOnevisionImageProcessor")


def read_image_settings(folder: Path) -> dict[str, Any]:
    """Reads the keyword arguments of `tga_jax.data.images.ImageTransform` from a model folder.

    Understands preprocessor_config.json (transformers 4, sizes as numbers or objects) and the
    "image_processor" of processor_config.json (transformers 5). A missing key has the default of
    the image processor that the file names.

    Raises:
        UserError: when there is no such file, or it asks for a step that ImageTransform lacks.
    """
    path, raw = _find_image_processor(folder)
    kind = _image_processor_type(path, raw)
    raw = DEFAULTS[kind] | {key: value for key, value in raw.items() if value is not None}
    sizes = (None, _tile_size(path, raw), None) if kind in TILED else _sizes(path, raw)
    shortest_edge, resize, crop = sizes
    normalize, rescale = raw.get("do_normalize", True), raw.get("do_rescale", True)
    resample, factor = raw.get("resample", BICUBIC), raw.get("rescale_factor", 1 / 255)
    return {
        "shortest_edge": shortest_edge,
        "resize": resize,
        "crop": crop,
        "resample": _whole(path, "resample", resample, least=0, most=LAST_FILTER),
        "pad_to_square": kind == "LlavaImageProcessor" and bool(raw.get("do_pad", False)),
        "mean": _channels(path, raw, "image_mean") if normalize else (0.0, 0.0, 0.0),
        "std": _channels(path, raw, "image_std") if normalize else (1.0, 1.0, 1.0),
        "rescale": _number(path, "rescale_factor", factor) if rescale else 1.0,
    }


def _sizes(
    path: Path, raw: dict[str, Any]
) -> tuple[int | None, tuple[int, int] | None, tuple[int, int] | None]:
    """Shortest edge, size to resize to, size to crop to; None for each that is not asked for."""
    resizes = raw.get("do_resize", True)
    shortest_edge, resize = _resize_sizes(path, raw) if resizes else (None, None)
    return shortest_edge, resize, _crop_size(path, raw) if raw["do_center_crop"] else None


def _tile_size(path: Path, raw: dict[str, Any]) -> tuple[int, int]:
    """The size of a tile, which the image processor may give a second time as a crop."""
    shortest_edge, resize = _resize_sizes(path, raw)
    size = resize or (shortest_edge or 0,) * 2
    crop = _crop_size(path, raw) if raw.get("crop_size") else size
    if len({*size, *crop}) > 1:
        raise UserError(
            f"{path}: size {raw['size']} and crop_size {raw.get('crop_size')} must be one"
        )
    return size


def check_tiles(folder: Path, config: LlavaConfig) -> None:
    """Refuse an image processor that prepares images otherwise than the model takes them.

    Raises:
        UserError: one of the two takes tiles and the other does not, or of other resolutions.
    """
    path, raw = _find_image_processor(folder)
    kind = _image_processor_type(path, raw)
    wanted = f"{LLAVAS[llava_type(config)].name}ImageProcessor"
    if (config.tiling is not None or kind in TILED) and kind != wanted:
        raise UserError(f"{path}: image processor {kind} is not for this model, {wanted} is")
    if config.tiling is None:
        return
    pinpoints = (DEFAULTS[kind] | raw).get("image_grid_pinpoints")
    if pinpoints not in (None, [list(point) for point in config.tiling.pinpoints]):
        raise UserError(
            f"{path}: image_grid_pinpoints are not those of config.json; make them agree"
        )


def write_processor(
    folder: Path, *, settings: dict[str, Any], config: LlavaConfig, image_token: str
) -> None:
    """Writes processor_config.json and preprocessor_config.json for the model's Processor.

    The two files are apart, as in the published checkpoints: transformers 4 and 5 read them both.
    The image processor's name carries no backend, so transformers takes the torchvision or the
    Pillow one, whichever can be imported.

    Args:
        folder: where to; exists.
        settings: keyword arguments of ImageTransform, as `read_image_settings` returns them.
        config: of the model; gives the patch size and the feature selection.
        image_token: the text that stands for an image.
    """
    model_type = llava_type(config)
    name = LLAVAS[model_type].name
    outer: dict[str, Any] = {
        "processor_class": f"{name}Processor",
        "image_token": image_token,
        "vision_feature_select_strategy": config.feature_select,
    }
    if config.tiling is not None and config.tiling.most is not None:
        outer |= {
            "num_image_tokens": config.image_tokens,
            "vision_aspect_ratio": f"anyres_max_{config.tiling.most}",
        }
    else:
        outer |= {
            "patch_size": config.vision.patch_size,
            # The class token; for "default" the processor takes one token off.
            "num_additional_image_tokens": int(config.vision.class_token),
        }
    write_json(folder / "processor_config.json", outer)
    inner = image_processor_config(settings, processor_class=f"{name}Processor")
    if config.tiling is not None:
        inner |= tile_processor_config(config)
    write_json(folder / "preprocessor_config.json", inner)
    if model_type == "llava_onevision":  # its processor has a part for videos, too
        kept = ("image_mean", "image_std", "resample", "rescale_factor", "size", "processor_class")
        video = {"video_processor_type": f"{name}VideoProcessor"}
        write_json(
            folder / "video_preprocessor_config.json", video | {key: inner[key] for key in kept}
        )


def tile_processor_config(config: LlavaConfig) -> dict[str, Any]:
    """What preprocessor_config.json says otherwise, or beside, of a model that takes tiles."""
    assert config.tiling is not None
    side = {"height": config.vision.image_size, "width": config.vision.image_size}
    found = {
        "image_processor_type": f"{LLAVAS[llava_type(config)].name}ImageProcessor",
        "do_pad": True,  # of batches, with empty tiles
        "image_grid_pinpoints": [list(point) for point in config.tiling.pinpoints],
        "size": side,
    }
    if config.tiling.most is None:  # as LLaVA-NeXT's files have it
        edge = {"shortest_edge": side["height"]}
        found |= {"size": edge, "crop_size": side, "do_center_crop": True}
    return found


def image_processor_config(
    settings: dict[str, Any], *, processor_class: str = "LlavaProcessor"
) -> dict[str, Any]:
    """Content of preprocessor_config.json; the inverse of `read_image_settings`."""
    pad = settings["pad_to_square"]
    config: dict[str, Any] = {
        "processor_class": processor_class,
        "image_processor_type": "LlavaImageProcessor" if pad else "CLIPImageProcessor",
        "do_convert_rgb": True,
        "do_resize": bool(settings["resize"] or settings["shortest_edge"]),
        "resample": settings["resample"],
        "do_center_crop": settings["crop"] is not None,
        "do_rescale": True,
        "rescale_factor": settings["rescale"],
        "do_normalize": True,
        "image_mean": list(settings["mean"]),
        "image_std": list(settings["std"]),
    }
    if pad:
        config["do_pad"] = True
    if settings["resize"]:
        config["size"] = dict(zip(("height", "width"), settings["resize"], strict=True))
    elif settings["shortest_edge"]:
        config["size"] = {"shortest_edge": settings["shortest_edge"]}
    if settings["crop"]:
        config["crop_size"] = dict(zip(("height", "width"), settings["crop"], strict=True))
    return config


def _find_image_processor(folder: Path) -> tuple[Path, dict[str, Any]]:
    """transformers' order: the nested object of processor_config.json before the older file."""
    nested = folder / "processor_config.json"
    if nested.is_file() and "image_processor" in (outer := _read_object(nested)):
        return nested, _object(nested, outer["image_processor"], "image_processor")
    path = folder / "preprocessor_config.json"
    if not path.is_file():
        raise UserError(
            f"{folder}: no preprocessor_config.json and no processor_config.json with an "
            "image_processor; copy them from the model that this one was made of"
        )
    return path, _read_object(path)


def _read_object(path: Path) -> dict[str, Any]:
    return _object(path, read_json(path), "the file")


def _object(path: Path, value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UserError(f"{path}: {what} must be a JSON object")
    return value


def _image_processor_type(path: Path, raw: dict[str, Any]) -> str:
    default = "CLIPImageProcessor"
    name = raw.get("image_processor_type") or raw.get("feature_extractor_type", default)
    kind = str(name).removesuffix("Fast").removesuffix("Pil")
    kind = kind.replace("FeatureExtractor", "ImageProcessor")
    if kind not in DEFAULTS:
        known = ", ".join(DEFAULTS)
        raise UserError(f"{path}: image processor {name} is not supported; one of {known} is")
    return kind


def _resize_sizes(path: Path, raw: dict[str, Any]) -> tuple[int | None, tuple[int, int] | None]:
    """Returns (shortest edge, None) or (None, (height, width))."""
    size = raw["size"]
    if isinstance(size, int):
        return _whole(path, "size", size), None
    values = size if isinstance(size, dict) else {}
    given = {key for key, value in values.items() if value is not None}
    if given == {"shortest_edge"}:
        return _whole(path, "size.shortest_edge", size["shortest_edge"]), None
    if given == {"height", "width"}:
        return None, _height_and_width(path, "size", size)
    raise UserError(f"{path}: size {size} is not supported; give shortest_edge or height and width")


def _crop_size(path: Path, raw: dict[str, Any]) -> tuple[int, int]:
    crop = raw.get("crop_size", 224)
    if isinstance(crop, int):
        side = _whole(path, "crop_size", crop)
        return side, side
    if not isinstance(crop, dict) or not {"height", "width"} <= crop.keys():
        raise UserError(f"{path}: crop_size {crop} must have height and width")
    return _height_and_width(path, "crop_size", crop)


def _height_and_width(path: Path, key: str, value: dict[str, Any]) -> tuple[int, int]:
    height, width = (_whole(path, f"{key}.{name}", value[name]) for name in ("height", "width"))
    return height, width


def _channels(path: Path, raw: dict[str, Any], key: str) -> tuple[float, ...]:
    values = raw[key]
    values = values if isinstance(values, list | tuple) else (values,) * 3
    if len(values) != 3:
        raise UserError(f"{path}: {key} must have 3 values, one a colour channel")
    numbers = tuple(_number(path, key, value) for value in values)
    if key == "image_std" and not all(numbers):
        raise UserError(f"{path}: image_std {values} must not hold 0; pixels are divided by it")
    return numbers


def _whole(path: Path, key: str, value: Any, *, least: int = 1, most: int = MAX_SIDE) -> int:
    number = _number(path, key, value)
    if number != int(number) or not least <= number <= most:
        raise UserError(f"{path}: {key} {value} must be a whole number from {least} to {most}")
    return int(number)


def _number(path: Path, key: str, value: Any) -> float:
    wrong = isinstance(value, bool) or not isinstance(value, int | float)
    if wrong or not -HUGE < value < HUGE:  # NaN is not in between either
        raise UserError(f"{path}: {key} {value!r} must be a number")
    return float(value)
