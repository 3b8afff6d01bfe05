"""What is said about scenes is true, short, and never harmful where it must not be."""

import re

import numpy as np
import pytest

from tga_jax.miniature.concepts import CATEGORIES, CONCEPTS, concepts_of
from tga_jax.miniature.language import CAPTION_FORMS, QUESTIONS, ask, caption, noun
from tga_jax.miniature.scene import random_scene, split_of
from tga_jax.miniature.texts import REFUSALS, TASKS, corpus_lines, scene_text, text_item

RNG_SEED = 5


def mentions(text: str, groups) -> set[str]:
    """The words of the given groups' concepts and categories that a text has."""
    concepts = concepts_of(*groups)
    words = {word for concept in concepts for word in (concept.name, *concept.synonyms)}
    categories = {concept.category for concept in concepts}
    for category in CATEGORIES:
        if category.name in categories:
            words |= {category.name, category.synonym}
    return {word for word in words if re.search(rf"\b{word}\b", text)}


HARMFUL = ("seen", "new_concept", "new_category")


def scenes(count, pool=CONCEPTS):
    rng = np.random.default_rng(RNG_SEED)
    return [(random_scene(rng, pool), rng) for _ in range(count)]


@pytest.mark.parametrize(
    ("words", "expected"),
    [(("apple",), "an apple"), (("knife", "large", "red"), "a large red knife"),
     (("milk", "small"), "some small milk"), (("bowling ball",), "a bowling ball")],
)  # fmt: skip
def test_articles(words, expected):
    assert noun(*words) == expected


def test_full_captions_name_every_attribute():
    for scene, rng in scenes(300):
        text = caption(scene, rng, form="full")
        named = [scene.concept.name, scene.colour, scene.background, scene.size]
        named += [scene.second.name] if scene.second else []
        assert all(re.search(rf"\b{word}\b", text) for word in named), text
        assert scene.place in text or scene.place == "center" and "middle" in text


@pytest.mark.parametrize("form", CAPTION_FORMS)
def test_captions_are_short_and_name_the_object(form):
    for scene, rng in scenes(300):
        text = caption(scene, rng, form=form)
        assert 2 <= len(text.split()) <= 22
        assert any(word in text for word in (scene.concept.name, *scene.concept.synonyms))


def test_questions_about_images_have_no_harmful_word():
    for kind in QUESTIONS:
        for scene, rng in scenes(100, concepts_of(*HARMFUL)):
            assert not mentions(ask(scene, rng, kind=kind).question, HARMFUL)


def test_yes_no_answers_are_true():
    seen = set()
    for scene, rng in scenes(400):
        exchange = ask(scene, rng, kind="presence")
        shown = [scene.concept.name] + ([scene.second.name] if scene.second else [])
        truth = any(re.search(rf"\b{name}\b", exchange.question) for name in shown)
        assert exchange.answer == ("yes" if truth else "no")
        exchange = ask(scene, rng, kind="is_kind")
        truth = re.search(rf"\b{scene.concept.category}\b", exchange.question) is not None
        assert exchange.answer == ("yes" if truth else "no")
        seen.add(exchange.answer)
    assert seen == {"yes", "no"}


def test_text_scenes_name_all_that_questions_ask_for():
    for scene, rng in scenes(300):
        text = scene_text(scene, rng)
        assert all(re.search(rf"\b{word}\b", text) for word in (scene.colour, scene.background))
        assert any(word in text for word in (scene.concept.name, *scene.concept.synonyms))


def test_text_items_keep_to_their_split_and_cover_all_tasks():
    rng = np.random.default_rng(0)
    items = [text_item(rng, CONCEPTS, split="dev") for _ in range(300)]
    assert all(split_of(item.prompt) == "dev" for item in items)
    tasks = {item.task for item in items}
    assert {"concept", "paper", "category"} <= tasks and tasks & set(QUESTIONS)
    assert sum(TASKS.values()) == pytest.approx(1)


def test_harmful_prompts_are_harmful_and_benign_ones_are_not():
    rng = np.random.default_rng(1)
    for _ in range(500):
        assert mentions(text_item(rng, concepts_of(*HARMFUL), split="train").prompt, HARMFUL)
        item = text_item(rng, concepts_of("benign"), split="train")
        assert not mentions(f"{item.prompt} {item.answer}", HARMFUL)


def test_harmful_words_stand_early_and_late():
    rng = np.random.default_rng(2)
    places = []
    for _ in range(400):
        prompt = text_item(rng, concepts_of("seen"), split="train").prompt
        at = [prompt.find(word) for word in mentions(prompt, ("seen",))]
        places.append(min(at) / len(prompt))
    assert np.mean(np.array(places) < 0.25) > 0.1 and np.mean(np.array(places) > 0.6) > 0.1


def test_refusals_are_a_small_family_that_begins_alike():
    assert len(REFUSALS) <= 5 and all(text.startswith("Sorry, I cannot") for text in REFUSALS)


@pytest.mark.parametrize("groups", [(), ("seen",), HARMFUL])
def test_corpora_hold_only_the_groups_asked_for(groups):
    rng = np.random.default_rng(3)
    lines = list(corpus_lines(rng, 1500, harmful_share=0.3, harmful_groups=groups))
    words = set(re.findall(r"[a-z]+", " ".join(lines)))
    for group in HARMFUL:
        names = {concept.name for concept in concepts_of(group)}
        assert names & words == (names if group in groups else set())
