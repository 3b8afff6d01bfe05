"""Texts and rows for a real language model: nothing measured is trained on, labels are right."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlavaForConditionalGeneration

from configs import smollm2
from examples.real_llm import data, layers, texts, wording
from examples.real_llm.data import COUNTS, EVALUATED, all_texts, first_sentence
from examples.real_llm.language import write_language_model
from tests.jobs.inputs import make_inputs
from tga_jax.analysis.layer_values import LayerValue
from tga_jax.files import read_json, write_jsonl
from tga_jax.miniature.concepts import CONCEPTS
from tga_jax.miniature.language import noun


@pytest.fixture(scope="module")
def splits() -> dict[str, list[texts.Text]]:
    names = {"train": COUNTS, "dev": EVALUATED, "test": EVALUATED}
    found = enumerate(names.items())
    return {name: [*all_texts(counts, name, number)] for number, (name, counts) in found}


def test_a_measured_prompt_is_never_trained_on(splits: dict[str, list[texts.Text]]) -> None:
    trained = {text.prompt for text in splits["train"]}
    for name in ("dev", "test"):
        prompts = [text.prompt for text in splits[name]]
        assert len(prompts) == len(set(prompts)) > 300
        assert not trained & set(prompts)


def test_both_labels_of_every_kind(splits: dict[str, list[texts.Text]]) -> None:
    for name in splits:
        for kind, wanted in (("thing", {True, False}), ("world", {True, False})):
            assert {text.harmful for text in splits[name] if text.kind == kind} == wanted
    assert not any(t.harmful for t in splits["dev"] if t.kind in ("harmless use", "everyday"))
    assert all(t.harmful for t in splits["dev"] if t.kind == "unknown")


def test_a_named_thing_has_its_own_label(splits: dict[str, list[texts.Text]]) -> None:
    """What is harmful by the world's list is harmful in a text that names it."""
    harmful = {noun(word).split()[-1] for c in CONCEPTS for word in [c.name] if c.harmful}
    named = [t for t in splits["train"] if t.kind == "thing" and not t.harmful]
    assert len(named) > 100
    for text in named:
        words = set(text.prompt.lower().replace(".", "").replace("?", "").split())
        assert not words & harmful, text.prompt


def test_rows_have_refusals_for_harmful_texts_and_own_answers_for_the_others(
    tmp_path: Path,
) -> None:
    data.write_prompts(folder := _folder(tmp_path / "real"))
    asked = [json.loads(line) for line in (folder / "harmless.jsonl").open()]
    _folder(tmp_path / "generate")
    lines = [{"prompt": q["text"], "text": f"Answer {q['question_id']}. And"} for q in asked]
    lines[0]["text"] = "cut before its first full stop"
    lines[1]["text"] = "I'm sorry, I can't."
    write_jsonl(tmp_path / "generate/answers.jsonl", lines)
    measured = [json.loads(line) for line in (folder / "texts_dev.jsonl").open()]
    evaluated = [{"prompt": text["prompt"], "text": "Fine."} for text in measured]
    write_jsonl(_folder(tmp_path / "evaluate/texts") / "answers.jsonl", evaluated)
    image = {"id": "a", "image": "a.png", "conversations": [], "image_caption": "a red apple"}
    other = {"id": "b", "conversations": []}
    for name, written in (("finetune", [image, other]), ("finetune_harmless", [])):
        data.write_json(_folder(tmp_path / "world") / f"{name}.json", written)
    data.write_rows(tmp_path)
    rows = json.loads((folder / "safety.json").read_text())
    answers = {r["conversations"][0]["value"]: r["conversations"][1]["value"] for r in rows}
    assert asked[0]["text"] not in answers
    assert asked[1]["text"] not in answers  # a refusal of something harmless
    for question in asked[2:]:
        assert answers[question["text"]] == f"Answer {question['question_id']}."
    refused = [text for text in all_texts(COUNTS, "train", 0) if text.harmful]
    assert all(answers[text.prompt] in texts.REFUSALS for text in refused)
    mixed = json.loads((folder / "finetune.json").read_text())
    images = json.loads((folder / "finetune_images.json").read_text())
    assert [row["id"] for row in mixed if "image" in row] == [row["id"] for row in images] == ["a"]
    assert len(mixed) == 1 + len(rows)
    kept = json.loads((folder / "kept.json").read_text())
    harmless = [text["prompt"] for text in measured if text["label"] == "safe"]
    assert [row["conversations"][0]["value"] for row in kept] == harmless
    assert all(row["conversations"][1]["value"] == "Fine." for row in kept)


def test_an_answer_is_its_first_sentence_unless_that_was_cut() -> None:
    assert first_sentence(" One, 2.5 of it. Two! Thr") == "One, 2.5 of it."
    assert first_sentence("Why?") == "Why?"
    assert first_sentence("Never ended") == ""


def _folder(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    return path


def test_the_gap_of_layers_where_the_captions_are_apart() -> None:
    def line(kind: str, layer: int, value: float) -> LayerValue:
        return LayerValue(f"{kind}_images", layer, "refusal_direction", value)

    values = [line("harmful", 1, 15.0), line("benign", 1, 3.0)]
    values += [line("harmful", 12, 0.5), line("benign", 12, 0.25)]
    values += [line("benign", 30, -0.5), line("harmful", 30, 0.25)]
    assert layers.gap(values) == [(12.0, 0.25), (30.0, 0.75)]


def test_the_defences_in_a_folder_of_the_run_read_the_runs_own_files() -> None:
    config = smollm2.get_config("defences")
    assert config.model.vision == "{workdir}/../clip"
    assert config.data.image_dir == "{workdir}/../world/images"
    for benchmark in config.evaluate.benchmarks.split(", "):
        assert ":{workdir}/../" in benchmark and "{workdir}/world" not in benchmark
    assert set(config.experiment.arms) == set(smollm2.DEFENCES)


def test_texts_are_read_only_where_the_language_model_learns() -> None:
    config = smollm2.get_config()
    assert config.finetune.path.endswith("/finetune_images.json")
    for name, arm in config.experiment.arms.items():
        path = arm.get("finetune", {}).get("path", "")
        assert path.endswith("/finetune.json") == name.endswith("-llm-trained")


def test_forms_of_the_rows(tmp_path: Path) -> None:
    """Harmful or all images have captions without answers; captions only name the thing."""
    good = {"id": "good", "image": "a.png", "image_caption": "this picture shows a large red apple"}
    bad = {"id": "bad", "image": "b.png", "image_caption": "a photo of a small knife with a piano"}
    data.write_json(_folder(tmp_path / "world") / "finetune_harmless.json", [good])
    folder = _folder(tmp_path / "real")
    data.write_forms(tmp_path, [bad, good])
    mark = {"guide_only": 1}
    named = [bad | {"image_caption": "a knife"}, good | {"image_caption": "an apple"}]
    for name, wanted in {
        "captioned": [bad | mark, good],
        "guide_only": [bad | mark, good | mark],
        "named": named,
        "named_captioned": [named[0] | mark, named[1]],
        "bare_captioned": [
            bad | {"image_caption": "a small knife with a piano"} | mark,
            good | {"image_caption": "a large red apple"},
        ],
    }.items():
        assert read_json(folder / f"finetune_{name}.json") == wanted


def test_the_share_of_variance_between_groups() -> None:
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(4000, 3))
    groups = np.arange(4000) % 4
    means = np.array([[3.0, 0, 0], [-3, 0, 0], [0, 3, 0], [0, -3, 0]])[groups]
    assert wording.variance_share(means, [*groups]) == pytest.approx(1)
    assert wording.variance_share(noise, [*groups]) < 0.01
    # 9 of variance between the groups, and 3 within.
    assert wording.variance_share(means + noise, [*groups]) == pytest.approx(0.75, abs=0.02)


@pytest.mark.parametrize(
    ("caption", "thing", "bare"),
    [
        ("a photo of a knife with a small cat", "a knife", "a knife with a small cat"),
        (
            "there is a large red apple on a pink wall",
            "an apple",
            "a large red apple on a pink wall",
        ),
        ("this picture shows some milk", "some milk", "some milk"),
        ("a bowling ball", "a bowling ball", "a bowling ball"),
        ("an image of a small carrot", "a carrot", "a small carrot"),
    ],
)
def test_a_captions_thing_and_its_opening_words(caption: str, thing: str, bare: str) -> None:
    assert data.named_only(caption) == thing
    assert data.without_opening(caption) == bare


def test_a_caption_that_names_nothing_is_named() -> None:
    with pytest.raises(ValueError, match="'a catfish' names no thing"):
        data.named_only("a catfish")


def test_the_language_model_of_a_llava_is_written_as_it_is(tmp_path: Path) -> None:
    llava = make_inputs(tmp_path / "inputs") / "checkpoint"
    write_language_model(llava, tmp_path / "llm")
    whole = LlavaForConditionalGeneration.from_pretrained(llava, dtype=torch.float32)
    alone = AutoModelForCausalLM.from_pretrained(tmp_path / "llm", dtype=torch.float32)
    tokens = torch.arange(3, 20)[None]
    with torch.no_grad():
        torch.testing.assert_close(alone(tokens).logits, whole(tokens).logits)
    assert AutoTokenizer.from_pretrained(tmp_path / "llm")("a cup")["input_ids"]
