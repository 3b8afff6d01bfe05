"""config.json in and out, against what transformers makes of the same file."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

transformers = pytest.importorskip("transformers")
pytest.importorskip("torch")
from tests import hf_models  # noqa: E402
from tga_jax.errors import UserError  # noqa: E402
from tga_jax.hf.config import (  # noqa: E402
    parts_json,
    read_config_json,
    read_decoder_config,
    read_llava_config,
    read_vision_config,
)
from tga_jax.hf.config_export import to_hf_config  # noqa: E402
from tga_jax.hf.hub import resolve_checkpoint  # noqa: E402
from tga_jax.models.config import LlavaConfig, LoraConfig, RopeScaling  # noqa: E402

pytestmark = pytest.mark.parity

# As llava-hf/llava-1.5-7b-hf has it: written by transformers 4, defaults left out.
LLAVA_15 = {
    "architectures": ["LlavaForConditionalGeneration"],
    "ignore_index": -100,
    "image_token_index": 32000,
    "model_type": "llava",
    "pad_token_id": 32001,
    "projector_hidden_act": "gelu",
    "text_config": {
        "_name_or_path": "lmsys/vicuna-7b-v1.5",
        "architectures": ["LlamaForCausalLM"],
        "max_position_embeddings": 4096,
        "model_type": "llama",
        "rms_norm_eps": 1e-05,
        "torch_dtype": "float16",
        "vocab_size": 32064,
    },
    "tie_word_embeddings": False,
    "torch_dtype": "float16",
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
}
MISTRAL_7B_V02 = {
    "architectures": ["MistralForCausalLM"],
    "attention_dropout": 0.0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "hidden_act": "silu",
    "hidden_size": 4096,
    "initializer_range": 0.02,
    "intermediate_size": 14336,
    "max_position_embeddings": 32768,
    "model_type": "mistral",
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-05,
    "rope_theta": 1000000.0,
    "sliding_window": None,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "use_cache": True,
    "vocab_size": 32000,
}


def _write(folder: Path, content: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(content))
    return folder


def _text(folder: Path, model_type: str, **keys: object) -> Path:
    return _write(folder, {"model_type": model_type, **keys})


def test_llava_15(tmp_path):
    config = read_llava_config(_write(tmp_path, LLAVA_15))
    assert (config.image_token, config.image_tokens, config.feature_blocks) == (32000, 576, 23)
    decoder = config.decoder
    assert (decoder.vocab, decoder.width, decoder.layers, decoder.ffn) == (32064, 4096, 32, 11008)
    assert (decoder.kv_heads, decoder.head_dim, decoder.norm_eps) == (32, 128, 1e-5)
    assert (config.vision.activation, config.vision.norm_eps) == ("quick_gelu", 1e-5)
    assert not decoder.tied_head and decoder.window is None


@pytest.mark.parametrize("key", ["rope_scaling", "rope_parameters"])
def test_rope_in_both_spellings(tmp_path, key):
    scaling = {
        "rope_type" if key == "rope_parameters" else "type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    extra = {"rope_theta": 5e5} if key == "rope_scaling" else {}
    if key == "rope_parameters":
        scaling["rope_theta"] = 5e5
    config = read_decoder_config(_text(tmp_path, "llama", **{key: scaling}, **extra))
    assert config.rope_theta == 5e5
    assert config.rope_scaling == RopeScaling("llama3", 8.0, 1.0, 4.0, 8192)


def test_windows(tmp_path):
    def window(model_type: str, **keys: object) -> int | None:
        return read_decoder_config(_text(tmp_path, model_type, **keys)).window

    assert window("mistral") == 4096  # transformers' default
    assert window("mistral", sliding_window=None) is None
    assert window("qwen2", sliding_window=4096) is None
    on = {"use_sliding_window": True, "sliding_window": 64, "num_hidden_layers": 4}
    assert window("qwen2", **on, max_window_layers=0) == 64
    assert window("qwen2", **on, max_window_layers=4) is None
    mixed = read_decoder_config(_text(tmp_path, "qwen2", **on, max_window_layers=3))
    assert (mixed.window, mixed.window_layers) == (64, (3,))
    with pytest.raises(UserError, match="layer_types 'chunked_attention' is not supported"):
        window("qwen2", **on, layer_types=["full_attention"] * 3 + ["chunked_attention"])


def test_clip_folder(tmp_path):
    clip = hf_models.tiny_clip(tmp_path, activation="gelu")
    config = read_vision_config(tmp_path)
    assert config.activation == "gelu"
    assert config.layers == clip.config.vision_config.num_hidden_layers


def _changed(key: str, value: object) -> dict:
    content = json.loads(json.dumps(LLAVA_15))
    *parents, last = key.split(".")
    target = content
    for parent in parents:
        target = target[parent]
    target[last] = value
    return content


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model_type", "vipllava"),
        ("text_config.model_type", "gemma"),
        ("vision_config.model_type", "siglip2_vision_model"),
        (
            "text_config.rope_scaling",
            {"type": "longrope", "factor": 2.0, "short_factor": [1.0] * 64, "long_factor": [1.0]},
        ),
        ("text_config.partial_rotary_factor", 0.5),
        ("text_config.hidden_act", "gelu"),
        ("text_config.hidden_size", "big"),
        ("vision_config.hidden_act", "relu"),
        ("vision_config.image_size", [336, 224]),
        ("vision_config.num_channels", 1),
        ("vision_feature_layer", [-2, -26]),
        ("vision_feature_layer", []),
        ("vision_feature_layer", -26),
        ("vision_feature_select_strategy", "mean"),
        ("projector_hidden_act", "relu"),
        ("image_token_index", 32064),
        ("quantization_config", {"load_in_4bit": True}),
        ("text_config", "llama"),
    ],
)
def test_what_we_do_not_have_is_refused_by_name(tmp_path, key, value):
    with pytest.raises(UserError) as error:
        read_llava_config(_write(tmp_path, _changed(key, value)))
    text = str(error.value)
    assert str(tmp_path / "config.json") in text and "\n" not in text
    last = key.split(".")[-1]
    assert last in text or (last == "rope_scaling" and value["type"] in text)


def test_wrong_kind_of_folder(tmp_path):
    folder = _write(tmp_path, LLAVA_15)
    with pytest.raises(UserError, match="a LLaVA checkpoint: config.model.checkpoint"):
        read_decoder_config(folder)
    with pytest.raises(UserError, match="model_type 'llava' is not supported here"):
        read_vision_config(folder)


def test_missing_and_malformed_file(tmp_path):
    with pytest.raises(UserError, match="config.json: not found"):
        read_llava_config(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": ')
    with pytest.raises(UserError, match="malformed JSON at line 1.*; repair it") as error:
        read_llava_config(tmp_path)
    assert "\n" not in str(error.value)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(UserError, match="not a JSON object"):
        read_llava_config(tmp_path)


def test_a_siglip_tower_and_feature_layers_are_exported(tmp_path):
    """The pooling head, which a LLaVA does not use, is not asked for."""
    vision = hf_models.siglip_config(vision_use_head=True)
    hf_models.tiny_llava(tmp_path / "in", vision=vision, feature_layer=[-1, 2])
    config = read_llava_config(tmp_path / "in")
    assert config.feature_layer == (-1, 2) and config.feature_states == (3, 2)
    assert (config.vision.class_token, config.vision.activation) == (False, "gelu_pytorch_tanh")
    source = read_config_json(tmp_path / "in")
    content = to_hf_config(config, source=source, dtype="float32", pad_token_id=3)
    before = transformers.LlavaConfig.from_pretrained(tmp_path / "in")
    after = transformers.LlavaConfig.from_pretrained(_write(tmp_path / "out", content))
    assert after.vision_feature_layer == [-1, 2]
    assert before.vision_config.to_dict() | {"vision_use_head": False} == (
        after.vision_config.to_dict()
    )


@pytest.mark.parametrize("kind", sorted(hf_models.KINDS))
def test_export_says_the_same_to_transformers(tmp_path, kind):
    """The exported config.json, loaded by transformers, is the source's but for what is ours."""
    hf_models.tiny_llava(tmp_path / "in", kind, feature_select="full", feature_layer=2)
    source = read_config_json(tmp_path / "in")
    config = read_llava_config(tmp_path / "in")
    content = to_hf_config(config, source=source, dtype="float32", pad_token_id=3)
    before = transformers.LlavaConfig.from_pretrained(tmp_path / "in").to_dict()
    after = transformers.LlavaConfig.from_pretrained(_write(tmp_path / "out", content)).to_dict()
    assert after.pop("pad_token_id") == 3 and after["text_config"].pop("pad_token_id") == 3
    before["text_config"].pop("pad_token_id")
    before["text_config"].setdefault("head_dim", config.decoder.head_dim)
    if config.decoder.window is None:  # this key then has no effect
        before["text_config"].pop("max_window_layers", None)
        after["text_config"].pop("max_window_layers", None)
    assert after == before
    assert read_llava_config(tmp_path / "out") == config


def test_transformers_4_keys_are_written_too(tmp_path):
    hf_models.tiny_llava(tmp_path, "llama_gqa_rope")
    config = read_llava_config(tmp_path)
    content = to_hf_config(
        config, source=read_config_json(tmp_path), dtype="float32", pad_token_id=None
    )
    text = content["text_config"]
    assert text["rope_theta"] == 500000.0
    assert text["rope_scaling"]["rope_type"] == "llama3" and text["rope_scaling"]["factor"] == 8.0


def test_export_of_parts(tmp_path):
    """Mistral-7B-Instruct-v0.2 and a CLIP tower, with tokens and adapters added."""
    llm = _write(tmp_path / "llm", MISTRAL_7B_V02)
    clip = _write(tmp_path / "clip", LLAVA_15["vision_config"])
    decoder = read_decoder_config(llm)
    assert decoder.window is None and decoder.rope_theta == 1e6
    decoder = dataclasses.replace(decoder, vocab=32064, lora=LoraConfig(8, 16.0))
    config = LlavaConfig(read_vision_config(clip), decoder, image_token=32000)
    content = to_hf_config(
        config, source=parts_json(vision=clip, llm=llm), dtype="bfloat16", pad_token_id=32001
    )
    text = transformers.LlavaConfig.from_pretrained(_write(tmp_path / "out", content)).text_config
    assert (text.model_type, text.vocab_size, text.sliding_window) == ("mistral", 32064, None)
    assert text.rope_parameters == {"rope_theta": 1e6, "rope_type": "default"}
    assert (text.max_position_embeddings, text.eos_token_id) == (32768, 2)
    assert content["architectures"] == ["LlavaForConditionalGeneration"]
    assert content["dtype"] == "bfloat16" and "torch_dtype" not in text.to_dict()
    assert content["image_seq_length"] == 576 and content["pad_token_id"] == 32001


def test_a_model_that_the_source_type_cannot_express(tmp_path):
    hf_models.tiny_llava(tmp_path, "llama")
    config = read_llava_config(tmp_path)
    config = dataclasses.replace(config, decoder=dataclasses.replace(config.decoder, window=5))
    with pytest.raises(ValueError, match="llama cannot express"):
        to_hf_config(config, source=read_config_json(tmp_path), dtype="float32", pad_token_id=0)


def test_resolve_checkpoint(tmp_path, monkeypatch):
    assert resolve_checkpoint(str(tmp_path)) == tmp_path
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="is a file"):
        resolve_checkpoint(str(tmp_path / "file"))
    with pytest.raises(UserError, match="is not a folder"):
        resolve_checkpoint(str(tmp_path / "nothing here"))
    asked = {}

    def download(name, **options):
        asked[name] = options
        if name != "org/model":
            raise OSError("no route\nto host")
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    assert resolve_checkpoint("org/model") == tmp_path
    patterns = asked["org/model"]["allow_patterns"]
    assert not any(pattern.endswith((".bin", ".pt", ".py", "*")) for pattern in patterns)
    with pytest.raises(UserError, match="org/other.*no route") as error:
        resolve_checkpoint("org/other")
    assert "\n" not in str(error.value)
