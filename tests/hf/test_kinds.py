"""A model's folder at a wrong door."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tga_jax.errors import UserError
from tga_jax.hf.config import read_decoder_config, read_llava_config


def write(folder: Path, content: object) -> Path:
    (folder / "config.json").write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            {"model_type": "mistral"},
            r"language model: set config\.model\.llm .* config\.model\.vision",
        ),
        ({"model_type": "clip"}, r"a CLIP: config\.model\.vision"),
        ({"model_type": "clip_vision_model"}, r"a vision tower: config\.model\.vision"),
        (
            {"model_type": "vipllava", "architectures": ["VipLlavaForConditionalGeneration"]},
            "VipLlavaForConditionalGeneration is a model that this program does not have",
        ),
        ({"model_type": "chameleon"}, "chameleon is a model that"),
        ({}, "what it describes is a model that"),
        (  # only these keys tell it from a Qwen2
            {
                "model_type": "qwen2",
                "architectures": ["LlavaQwenForCausalLM"],
                "mm_vision_tower": "google/siglip-so400m-patch14-384",
            },
            "LlavaQwenForCausalLM in the LLaVA repository's own layout",
        ),
        (
            {
                "model_type": "llava",
                "architectures": ["LlavaLlamaForCausalLM"],
                "mm_projector_type": "mlp2x_gelu",
            },
            "LlavaLlamaForCausalLM in the LLaVA repository's own layout",
        ),
    ],
)
def test_another_model_at_the_checkpoints_door_is_shown_its_own(tmp_path, content, said):
    with pytest.raises(UserError, match=said) as error:
        read_llava_config(write(tmp_path, content))
    assert str(tmp_path / "config.json") in str(error.value) and "\n" not in str(error.value)


def test_a_llava_of_its_own_layout_is_no_language_model(tmp_path):
    content = {"model_type": "qwen2", "mm_vision_tower": "x"}
    with pytest.raises(UserError, match="own layout"):
        read_decoder_config(write(tmp_path, content | {"architectures": ["LlavaQwenForCausalLM"]}))
