"""Exported folders, as transformers loads them."""

import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
import pytest
import torch
from flax.traverse_util import flatten_dict
from PIL import Image
from safetensors.numpy import load_file
from tokenizers import Tokenizer
from transformers import AutoProcessor, AutoTokenizer, LlavaForConditionalGeneration

from tests.hf_models import import_llava, tiny_llava
from tests.toy_tokenizers import write_sentencepiece_style
from tga_jax.data.prompts import Prompter
from tga_jax.data.records import Question
from tga_jax.errors import UserError
from tga_jax.hf import export
from tga_jax.hf.config import read_config_json, read_llava_config
from tga_jax.hf.export import export_folder
from tga_jax.hf.model_card import CardFacts, StageFacts
from tga_jax.hf.processor import CLIP_MEAN, CLIP_STD, read_image_settings
from tga_jax.hf.tokenizer import load_tokenizer

pytestmark = pytest.mark.parity

SETTINGS = {
    "shortest_edge": 32,
    "resize": None,
    "crop": (32, 32),
    "resample": 3,
    "pad_to_square": True,
    "mean": CLIP_MEAN,
    "std": CLIP_STD,
    "rescale": 1 / 255,
}
CARD = CardFacts(
    name="tiny",
    bases=("org/clip", "/home/someone/llm"),
    template="vicuna_v1",
    retrieved_in_prompt=True,
    guide_form="paper",
    guide_layers=(2, 3),
    guide_center="none",
    pad_to_square=True,
    stages=(StageFacts("pretrain", 10, 8, 1e-3, "projector"),),
)
FILES = {
    "README.md",
    "chat_template.jinja",
    "chat_template.json",
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A LLaVA checkpoint with a tokenizer, and what `export_folder` needs of it."""
    folder = tmp_path_factory.mktemp("source")
    write_sentencepiece_style(folder)
    info = load_tokenizer(folder)
    model = tiny_llava(folder, "llama", vocab=448, image_token=info.image_token_id)
    _, params = import_llava(folder)
    arguments = dict(
        params=flatten_dict(params, sep="/"),
        config=read_llava_config(folder),
        source_config=read_config_json(folder),
        tokenizer=dataclasses.replace(info, eos_ids=(2, 13)),
        image_settings=SETTINGS,
        template="vicuna_v1",
        system=None,
        trained=True,
        dtype="float32",
        card=CARD,
    )
    return model, arguments


@pytest.fixture(scope="module")
def exported(source, tmp_path_factory):
    folder = tmp_path_factory.mktemp("work") / "export"
    export_folder(folder, **source[1])
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_all_files_are_there_and_nothing_else(exported):
    assert set(contents(exported)) == FILES
    assert [path.name for path in exported.parent.iterdir()] == ["export"]


def test_transformers_generates_what_the_source_generates(source, exported):
    model, arguments = source
    processor = AutoProcessor.from_pretrained(exported)
    loaded = LlavaForConditionalGeneration.from_pretrained(exported, attn_implementation="eager")
    shown = Image.new("RGB", (50, 30), "orange")
    message = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What?"}]}
    text = processor.apply_chat_template([message], add_generation_prompt=True)
    inputs = processor(text=text, images=shown, return_tensors="pt")
    prompter = Prompter(
        arguments["tokenizer"].tokenizer,
        template="vicuna_v1",
        image_token="<image>",
        image_tokens=arguments["config"].image_tokens,
        max_length=500,
        use_retrieved=False,
    )
    trained = prompter.encode_question(Question(id=1, image="x", text="What?")).tokens
    np.testing.assert_array_equal(inputs["input_ids"][0], trained)
    with torch.no_grad():
        got = loaded.generate(**inputs, max_new_tokens=8)
        expected = model.generate(
            **inputs, max_new_tokens=8, do_sample=False, eos_token_id=[2, 13], pad_token_id=401
        )
    np.testing.assert_array_equal(got, expected)
    assert got.shape[1] > trained.shape[0]


def test_a_batch_is_padded_on_the_left(exported):
    processor = AutoProcessor.from_pretrained(exported)
    assert processor.tokenizer.padding_side == "left"
    batch = processor(text=["a", "a b c"], padding=True)
    assert batch["input_ids"][0][0] == processor.tokenizer.pad_token_id


def test_configs_name_the_tokens(exported):
    config = json.loads((exported / "config.json").read_text())
    generation = json.loads((exported / "generation_config.json").read_text())
    backend = Tokenizer.from_file(str(exported / "tokenizer.json"))
    assert config["image_token_index"] == backend.token_to_id("<image>")
    assert config["pad_token_id"] == backend.token_to_id("<pad>")
    assert generation == {
        "bos_token_id": 1,
        "do_sample": False,
        "eos_token_id": [2, 13],
        "pad_token_id": backend.token_to_id("<pad>"),
    }
    assert AutoTokenizer.from_pretrained(exported).pad_token == "<pad>"
    assert read_image_settings(exported) == SETTINGS


def test_the_same_arguments_give_the_same_bytes(source, exported, tmp_path):
    export_folder(tmp_path / "other", **source[1])
    assert contents(tmp_path / "other") == contents(exported)


def test_an_export_of_an_export_is_the_same(source, exported, tmp_path):
    again = dict(source[1], source_config=read_config_json(exported))
    again["tokenizer"] = load_tokenizer(exported)
    export_folder(tmp_path / "again", **again)
    assert contents(tmp_path / "again") == contents(exported)


def test_an_interrupted_export_leaves_the_earlier_one(source, tmp_path, monkeypatch):
    folder = tmp_path / "export"
    export_folder(folder, **source[1])
    before = contents(folder)
    changed = {path: value + 1 for path, value in source[1]["params"].items()}

    def fail(params: dict[str, jax.Array], target: Path, **_: object) -> None:
        (target / "model.safetensors").write_bytes(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(export, "save_weights", fail)
        export_folder(folder, **source[1])
    assert contents(folder) == before
    export_folder(folder, **dict(source[1], params=changed))
    assert [path.name for path in tmp_path.iterdir()] == ["export"]
    name = "multi_modal_projector.linear_1.bias"
    (tmp_path / "before.safetensors").write_bytes(before["model.safetensors"])
    old = load_file(tmp_path / "before.safetensors")
    new = load_file(folder / "model.safetensors")
    np.testing.assert_allclose(new[name], old[name] + 1, rtol=1e-6)


def test_a_file_in_the_way_is_not_removed(source, tmp_path):
    (tmp_path / "export").write_text("mine")
    with pytest.raises(UserError, match="export: is a file"):
        export_folder(tmp_path / "export", **source[1])
    assert (tmp_path / "export").read_text() == "mine"


def test_code_of_the_model_card_runs(exported, tmp_path, capsys):
    Image.new("RGB", (50, 30), "orange").save(tmp_path / "image.jpg")
    card = (exported / "README.md").read_text()
    code = card.split("```python\n")[1].split("```")[0]
    code = code.replace("path/to/this/folder", str(exported))
    exec(code.replace("image.jpg", str(tmp_path / "image.jpg")), {})
    assert capsys.readouterr().out.strip()


def test_model_card_states_the_facts(exported):
    card = (exported / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: transformers\npipeline_tag: image-text-to-text\n")
    for words in (
        "arXiv 2410.12662",
        "decoder layers 2, 3",
        '"paper"',
        "vicuna_v1",
        "org/clip",
        "| pretrain | 10 | 8 | 0.001 | projector |",
        "judge",
        "retrieved_text",
    ):
        assert words in card
    assert "/home/someone" not in card
