"""LLaVA's original layout, against modules put together as its repository does."""

import json

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from transformers import MistralConfig, MistralForCausalLM

from tests.hf_models import tiny_llava
from tga_jax.errors import UserError
from tga_jax.hf.llava_layout import COPIED, original_name, write_llava_layout

pytestmark = pytest.mark.parity

TOWER = "openai/clip-vit-large-patch14-336"


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """What the layout reads of an export, with another model's weights."""
    folder = tmp_path_factory.mktemp("export")
    model = tiny_llava(folder, "mistral")
    for name in COPIED:
        (folder / name).write_text("{}")
    (folder / "preprocessor_config.json").write_text('{"do_pad": true}')
    return folder, model


def original_modules(config):
    """LlavaMistralForCausalLM: the language model with `model.mm_projector`, an nn.Sequential."""
    text = MistralConfig(**{k: v for k, v in config.items() if not k.startswith("mm_")})
    model = MistralForCausalLM(text)
    model.model.mm_projector = torch.nn.Sequential(
        torch.nn.Linear(config["mm_hidden_size"], config["hidden_size"]),
        torch.nn.GELU(),
        torch.nn.Linear(config["hidden_size"], config["hidden_size"]),
    )
    return model


def test_weights_fill_the_original_modules_exactly(exported, tmp_path):
    folder, model = exported
    out = tmp_path / "tga-llava-mistral"
    write_llava_layout(folder, out, vision_tower=TOWER)
    config = json.loads((out / "config.json").read_text())
    weights = load_file(out / "model.safetensors")
    original = original_modules(config)
    original.load_state_dict({k: torch.tensor(v) for k, v in weights.items()}, strict=True)

    features = torch.randn(3, config["mm_hidden_size"])
    tokens = torch.tensor([[1, 7, 9, 4]])
    with torch.no_grad():
        np.testing.assert_allclose(
            original.model.mm_projector(features),
            model.model.multi_modal_projector(features),
            atol=1e-6,
        )
        np.testing.assert_allclose(
            original(tokens).logits, model(input_ids=tokens).logits, atol=1e-4
        )


def test_config_has_the_keys_that_llava_reads(exported, tmp_path):
    out = tmp_path / "llava-mistral"
    write_llava_layout(exported[0], out, vision_tower=TOWER)
    config = json.loads((out / "config.json").read_text())
    expected = {
        "model_type": "llava_mistral",
        "architectures": ["LlavaMistralForCausalLM"],
        "image_aspect_ratio": "pad",
        "mm_hidden_size": 24,
        "mm_projector_type": "mlp2x_gelu",
        "mm_use_im_patch_token": False,
        "mm_use_im_start_end": False,
        "mm_vision_select_feature": "patch",
        "mm_vision_select_layer": -2,
        "mm_vision_tower": TOWER,
        "sliding_window": None,
    }
    assert {key: config[key] for key in expected} == expected


def test_names():
    assert original_name("language_model.lm_head.weight", linear=False) == "lm_head.weight"
    layer = "model.layers.3.mlp.up_proj.weight"
    assert original_name(f"language_model.{layer}", linear=False) == layer
    first, second = (f"multi_modal_projector.linear_{i}.bias" for i in (1, 2))
    assert original_name(first, linear=False) == "model.mm_projector.0.bias"
    assert original_name(second, linear=False) == "model.mm_projector.2.bias"
    assert original_name(first, linear=True) == "model.mm_projector.bias"
    assert original_name(second, linear=True) is None
    assert original_name("vision_tower.post_layernorm.bias", linear=False) is None


def test_name_that_llava_would_misread_is_refused(exported, tmp_path):
    with pytest.raises(UserError, match="llava and mistral"):
        write_llava_layout(exported[0], tmp_path / "llava-7b", vision_tower=TOWER)


def test_language_model_without_a_class_is_refused(exported, tmp_path):
    tiny_llava(tmp_path / "phi", "phi3")
    with pytest.raises(UserError, match="phi3"):
        write_llava_layout(tmp_path / "phi", tmp_path / "llava-phi", vision_tower=TOWER)
