"""Which prompt template "auto" stands for, and when a named one is warned of."""

from __future__ import annotations

import json

import pytest

from tests.hf.official_templates import LLAMA_3, LLAVA_15, LLAVA_16_MISTRAL, ONEVISION
from tests.toy_tokenizers import CHATML, write_byte_level, write_prepending
from tga_jax.hf.chat_template import NAMED_TEMPLATES, chat_template
from tga_jax.hf.template_choice import TemplateFacts, choose_template, template_facts
from tga_jax.hf.tokenizer import load_tokenizer, save_tokenizer


@pytest.mark.parametrize(
    ("names", "decoder", "template"),
    [
        (["llava-1.5-7b-hf"], "llama", "vicuna_v1"),
        (["mine", "vicuna-13b-v1.5"], "llama", "vicuna_v1"),
        (["llava-v1.6-mistral-7b-hf"], "mistral", "mistral_instruct"),
        (["bakllava-v1-hf"], "mistral", "mistral_instruct"),
        (["mistral-7b-instruct-v0.2"], "mistral", "mistral_instruct"),
        (["llama-2-7b-chat-hf"], "llama", "llama_2"),
        (["llava-llama-2-13b-chat-lightning"], "llama", "llama_2"),
        (["llava-v1.6-34b-hf"], "llama", "chatml"),
        (["qwen2.5-1.5b-instruct"], "qwen2", "chatml_qwen"),
        (["my-llava", "qwen2-0.5b"], "qwen2", "chatml_qwen"),
        (["checkpoint"], "qwen2", "chatml_qwen"),
        (["checkpoint"], "qwen3", "chatml_qwen"),
        (["llava-qwen3-4b"], "qwen3", "chatml_qwen"),
        (["checkpoint"], "llama", "vicuna_v1"),
        (["mistral-7b-v0.1"], "mistral", "vicuna_v1"),  # a base model knows no prompts
        ([], "", "vicuna_v1"),
    ],
)
def test_without_a_chat_template_names_and_parts_tell(names, decoder, template):
    choice = choose_template("auto", TemplateFacts(names=tuple(names), decoder=decoder))
    assert (choice.name, choice.warning) == (template, "")
    assert choice.reason


def test_the_reason_says_what_told():
    choice = choose_template("auto", TemplateFacts(names=("llava-1.5-7b-hf",), decoder="llama"))
    assert choice.reason == (
        "which the name 'llava-1.5-7b-hf' calls for; the checkpoint has no chat template"
    )
    assert "neither" in choose_template("auto", TemplateFacts(names=("x",))).reason


@pytest.mark.parametrize(
    ("name", "decoder", "said"),
    [
        ("llava-llama-3-8b", "llama", "'llava-llama-3-8b'"),
        ("llava-phi-3-mini", "phi3", "'llava-phi-3-mini'"),
        ("llava-gemma-2b", "gemma2", "'llava-gemma-2b'"),
        ("checkpoint", "phi3", "the language model, a Phi-3,"),
        ("checkpoint", "gemma2", "the language model, a Gemma 2,"),
        ("checkpoint", "gemma3_text", "the language model, a Gemma 3,"),
    ],
)
def test_a_model_without_a_fitting_named_template_is_warned_of(name, decoder, said):
    """None of the named templates is its family's; its own would stand in chat_template.jinja."""
    choice = choose_template("auto", TemplateFacts(names=(name,), decoder=decoder))
    assert choice.name == "vicuna_v1"
    assert said in choice.warning and "chat_template.jinja" in choice.warning


def test_a_chat_template_counts_more_than_the_language_model():
    choice = choose_template("auto", TemplateFacts(file="chat_template.jinja", decoder="gemma2"))
    assert (choice.name, choice.warning) == ("tokenizer", "")


def facts(folder, template, *, names=("x",), decoder="llama"):
    """Of a folder whose chat template stands beside its processor."""
    write_byte_level(folder, bos="<|begin_of_text|>")
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": template}))
    return template_facts(load_tokenizer(folder), names=names, decoder=decoder)


def test_a_chat_template_comes_before_a_name(tmp_path):
    found = facts(tmp_path, LLAVA_15, names=("org/Qwen2-7B", "", "a/b/"))
    assert found.names == ("qwen2-7b", "b")
    choice = choose_template("auto", found)
    assert choice.name == "tokenizer" and "chat_template.json" in choice.reason


@pytest.mark.parametrize("name", [name for name in NAMED_TEMPLATES if name != "plain"])
def test_an_export_of_ours_is_known_by_its_name(tmp_path, name):
    """So that texts which replace a system text find the template's own."""
    info = load_tokenizer(write_prepending(tmp_path / "m"))
    save_tokenizer(tmp_path / "out", info.tokenizer, chat_template=chat_template(name, info=info))
    again = template_facts(load_tokenizer(tmp_path / "out"), names=())
    assert choose_template("auto", again).name == name


@pytest.mark.parametrize(("name", "system"), [("vicuna_v1", "Be brief."), ("plain", None)])
def test_another_export_is_used_as_it_is(tmp_path, name, system):
    """With a system text of its own; and "plain", which asks nothing, is never chosen."""
    info = load_tokenizer(write_prepending(tmp_path / "m"))
    other = chat_template(name, info=info, system=system)
    save_tokenizer(tmp_path / "other", info.tokenizer, chat_template=other)
    again = template_facts(load_tokenizer(tmp_path / "other"), names=())
    assert choose_template("auto", again).name == "tokenizer"


@pytest.mark.parametrize(
    ("template", "fitting", "others"),
    [
        (LLAVA_15, ["vicuna_v1"], ["chatml", "llama_2"]),
        (LLAVA_16_MISTRAL, ["mistral_instruct", "llama_2"], ["vicuna_v1", "chatml_qwen"]),
        (ONEVISION, ["chatml", "chatml_qwen"], ["vicuna_v1"]),
        (CHATML, ["chatml", "chatml_qwen"], ["mistral_instruct"]),
        (LLAMA_3, [], ["vicuna_v1", "chatml"]),
    ],
)
def test_a_named_template_of_another_kind_is_warned_of(tmp_path, template, fitting, others):
    found = facts(tmp_path, template)
    for name in [*fitting, "plain", "tokenizer"]:
        assert choose_template(name, found).warning == ""
    for name in others:
        choice = choose_template(name, found)
        assert choice.name == name  # it is what the user wants all the same
        assert f"config.prompt.template={name!r}" in choice.warning
        assert "chat_template.json" in choice.warning


def test_a_name_is_evidence_too():
    found = TemplateFacts(names=("llava-1.5-7b-hf",), decoder="llama")
    assert "'llava-1.5-7b-hf'" in choose_template("chatml", found).warning
    assert choose_template("vicuna_v1", found).warning == ""
    unknown = TemplateFacts(names=("checkpoint",), decoder="llama")
    assert all(choose_template(name, unknown).warning == "" for name in NAMED_TEMPLATES)
