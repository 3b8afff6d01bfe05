"""The classes of LLaVA: config.json and image processors in and out, and what is refused."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

transformers = pytest.importorskip("transformers")
pytest.importorskip("torch")
from transformers import AutoConfig  # noqa: E402

from tests.hf_models import PINPOINTS, write_tile_processor  # noqa: E402
from tga_jax.errors import UserError  # noqa: E402
from tga_jax.hf.config import llava_config, read_config_json  # noqa: E402
from tga_jax.hf.config_export import to_hf_config  # noqa: E402
from tga_jax.hf.processor import (  # noqa: E402
    check_tiles,
    read_image_settings,
    write_processor,
)
from tga_jax.models.config import LlavaConfig, Tiling  # noqa: E402
from tga_jax.planning.architectures import MODELS  # noqa: E402

pytestmark = pytest.mark.parity
FILE = Path("config.json")
NEXT_PINPOINTS = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]
# As llava-hf/llava-v1.6-mistral-7b-hf has it: written by transformers 4, defaults left out.
NEXT = {
    "architectures": ["LlavaNextForConditionalGeneration"],
    "ignore_index": -100,
    "image_grid_pinpoints": NEXT_PINPOINTS,
    "image_token_index": 32000,
    "model_type": "llava_next",
    "projector_hidden_act": "gelu",
    "text_config": {
        "_name_or_path": "mistralai/Mistral-7B-Instruct-v0.2",
        "architectures": ["MistralForCausalLM"],
        "intermediate_size": 14336,
        "max_position_embeddings": 32768,
        "model_type": "mistral",
        "num_key_value_heads": 8,
        "rms_norm_eps": 1e-05,
        "rope_theta": 1000000.0,
        "sliding_window": None,
        "torch_dtype": "bfloat16",
        "vocab_size": 32064,
    },
    "torch_dtype": "float16",
    "use_image_newline_parameter": True,
    "vision_config": {
        "hidden_size": 1024,
        "image_size": 336,
        "intermediate_size": 4096,
        "model_type": "clip_vision_model",
        "num_attention_heads": 16,
        "num_hidden_layers": 24,
        "patch_size": 14,
        "projection_dim": 768,
        "vocab_size": 32000,
    },
    "vision_feature_layer": -2,
    "vision_feature_select_strategy": "default",
    "vocab_size": 32064,
}
# As llava-hf/llava-onevision-qwen2-7b-ov-hf has it.
ONEVISION = {
    "architectures": ["LlavaOnevisionForConditionalGeneration"],
    "image_grid_pinpoints": [[384 * a, 384 * b] for a in range(1, 7) for b in range(1, 7)],
    "image_token_index": 151646,
    "model_type": "llava_onevision",
    "projector_hidden_act": "gelu",
    "text_config": {
        "_name_or_path": "Qwen/Qwen2-7B-Instruct",
        "architectures": ["Qwen2ForCausalLM"],
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "model_type": "qwen2",
        "num_attention_heads": 28,
        "num_hidden_layers": 28,
        "num_key_value_heads": 4,
        "rope_theta": 1000000.0,
        "vocab_size": 152128,
    },
    "tie_word_embeddings": False,
    "use_image_newline_parameter": True,
    "video_token_index": 151647,
    "vision_aspect_ratio": "anyres_max_9",
    "vision_config": {
        "hidden_size": 1152,
        "image_size": 384,
        "intermediate_size": 4304,
        "model_type": "siglip_vision_model",
        "num_attention_heads": 16,
        "num_hidden_layers": 26,
        "patch_size": 14,
        "vision_use_head": False,
    },
    "vision_feature_layer": -1,
    "vision_feature_select_strategy": "full",
}


def read(content: dict[str, Any], **changes: Any) -> LlavaConfig:
    return llava_config(content | changes, file=FILE)


def test_published_files_are_the_models_of_the_plans() -> None:
    assert read(NEXT) == MODELS["llava_1.6_mistral_7b"]
    assert read(ONEVISION) == MODELS["llava_onevision_7b"]
    left_out = {k: v for k, v in NEXT.items() if k != "image_grid_pinpoints"}
    assert read(left_out).tiling == Tiling(tuple(map(tuple, NEXT_PINPOINTS)))


@pytest.mark.parametrize("content", [NEXT, ONEVISION], ids=["next", "onevision"])
def test_an_export_says_the_same_to_transformers(tmp_path: Path, content: Any) -> None:
    written = to_hf_config(read(content), source=content, dtype="bfloat16", pad_token_id=7)
    (tmp_path / "config.json").write_text(json.dumps(written))
    theirs = AutoConfig.from_pretrained(tmp_path)
    assert type(theirs).__name__ == content["architectures"][0].replace(
        "ForConditionalGeneration", "Config"
    )
    assert theirs.image_grid_pinpoints == content["image_grid_pinpoints"]
    for key in ("vision_aspect_ratio", "video_token_index", "vision_feature_layer"):
        assert getattr(theirs, key, None) == content.get(key)
    assert llava_config(read_config_json(tmp_path), file=FILE) == read(content)


@pytest.mark.parametrize(
    ("content", "changes", "words"),
    [
        (NEXT, {"image_grid_pinpoints": [[336, 700]]}, "image_grid_pinpoints .*336 pixels"),
        (NEXT, {"image_grid_pinpoints": [336, 672]}, "image_grid_pinpoints"),
        (NEXT, {"image_grid_pinpoints": []}, "image_grid_pinpoints"),
        (NEXT, {"image_grid_pinpoints": [[336 * 10**6, 336]]}, "image_grid_pinpoints"),
        (NEXT, {"vision_feature_select_strategy": "full"}, "select_strategy must be 'default'"),
        (ONEVISION, {"vision_feature_select_strategy": "default"}, "must be 'full'"),
        (ONEVISION, {"vision_aspect_ratio": "pad"}, "vision_aspect_ratio 'pad'"),
        (NEXT, {"model_type": "vipllava"}, "model_type 'vipllava' is not supported"),
        (NEXT, {"model_type": "llava_next_video"}, "model_type 'llava_next_video'"),
    ],
)
def test_what_we_do_not_have_is_refused_by_name(content: Any, changes: Any, words: str) -> None:
    with pytest.raises(UserError, match=f"config.json: .*{words}"):
        read(content, **changes)


def tiny(name: str, most: int | None = None) -> LlavaConfig:
    """A published model with the tests' tower and resolutions."""
    config = MODELS["llava_1.6_mistral_7b" if name == "LlavaNext" else "llava_onevision_7b"]
    vision = dataclasses.replace(config.vision, image_size=32, patch_size=8)
    return dataclasses.replace(
        config, vision=vision, tiling=Tiling(tuple(map(tuple, PINPOINTS)), most)
    )


@pytest.mark.parametrize(("name", "most"), [("LlavaNext", None), ("LlavaOnevision", 4)])
def test_image_processors_are_read_back(tmp_path: Path, name: str, most: int | None) -> None:
    write_tile_processor(tmp_path, name)
    settings, config = read_image_settings(tmp_path), tiny(name, most)
    assert settings["resize"] == (32, 32) and settings["crop"] is None
    check_tiles(tmp_path, config)
    out = tmp_path / "out"
    out.mkdir()
    write_processor(out, settings=settings, config=config, image_token="<image>")
    assert read_image_settings(out) == settings
    check_tiles(out, config)
    theirs = transformers.AutoImageProcessor.from_pretrained(out)
    assert type(theirs).__name__.startswith(f"{name}ImageProcessor")
    assert theirs.image_grid_pinpoints == PINPOINTS


def test_an_image_processor_of_another_class_is_refused(tmp_path: Path) -> None:
    write_tile_processor(tmp_path)
    file = tmp_path / "preprocessor_config.json"
    for other in (MODELS["llava_1.5_7b"], tiny("LlavaOnevision", 4)):
        with pytest.raises(UserError, match="preprocessor_config.json: image processor LlavaNext"):
            check_tiles(tmp_path, other)
    content = json.loads(file.read_text())
    file.write_text(json.dumps(content | {"image_grid_pinpoints": [[64, 64]]}))
    with pytest.raises(UserError, match="image_grid_pinpoints are not those of config.json"):
        check_tiles(tmp_path, tiny("LlavaNext"))
    file.write_text(json.dumps(content | {"image_grid_pinpoints": 7}))
    with pytest.raises(UserError, match="image_grid_pinpoints are not those of config.json"):
        check_tiles(tmp_path, tiny("LlavaNext"))
    oblong = {"image_processor_type": "LlavaOnevisionImageProcessor"}
    file.write_text(json.dumps(oblong | {"size": {"height": 32, "width": 64}}))
    with pytest.raises(UserError, match="size .* and crop_size None must be one"):
        read_image_settings(tmp_path)
    file.write_text(json.dumps(content | {"crop_size": 28}))
    with pytest.raises(UserError, match="size .* and crop_size 28 must be one"):
        read_image_settings(tmp_path)
    file.write_text(json.dumps({"image_processor_type": "CLIPImageProcessor", "size": 32}))
    with pytest.raises(UserError, match="image processor CLIPImageProcessor"):
        check_tiles(tmp_path, tiny("LlavaNext"))
