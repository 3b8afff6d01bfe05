"""Contrastive training: which captions are true of which images, the loss, going on after a
kill, and that it learns."""

import flax.linen as nn
import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from tga_jax.miniature import pair_store
from tga_jax.miniature.clip_training import (
    ClipTraining,
    contrastive_loss,
    train_clip,
    zero_shot,
)
from tga_jax.miniature.concepts import BY_NAME, CATEGORIES, CONCEPTS
from tga_jax.miniature.draw import DrawSettings
from tga_jax.miniature.pair_store import DrawnPairs, PairStore, draw_pairs, facts, is_true
from tga_jax.miniature.scene import BACKGROUNDS, COLOURS, PLACES, SIZES, Scene
from tga_jax.models.clip import Clip
from tga_jax.models.config import ClipConfig, TextConfig, VisionConfig
from tga_jax.models.llava import PixelNorm
from tga_jax.parallel.mesh import make_mesh

DRAWING = DrawSettings(side_pixels=16)
END = 99
MODEL = Clip(
    ClipConfig(
        VisionConfig(image_size=16, patch_size=8, width=16, layers=1, heads=2, ffn=32),
        TextConfig(vocab=100, length=24, width=16, layers=1, heads=2, ffn=32, end_token=END),
        embedding=8,
    ),
    PixelNorm((0.5,) * 3, (0.5,) * 3),
)
SETTINGS = ClipTraining(
    seed=0, pairs=40, steps=4, batch_size=8, learning_rate=1e-2, weight_decay=0.05, save_every=2
)


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch):
    monkeypatch.setattr(pair_store, "CHUNK", 20)


def _tokenise(texts):
    out = np.zeros((len(texts), 24), np.int32)
    for row, text in zip(out, texts, strict=True):
        ids = [sum(map(ord, word)) % 98 + 1 for word in text.split()][:23]
        row[: len(ids) + 1] = [*ids, END]
    return out


def _scene(name, second=None, colour="red", place="left"):
    other = BY_NAME[second] if second else None
    return Scene(BY_NAME[name], colour, "white", place, "small", other)


@pytest.mark.parametrize(
    ("text", "true", "false"),
    [
        ("a photo of a dog", [_scene("dog"), _scene("dog", colour="blue")], [_scene("cat")]),
        ("a red puppy", [_scene("dog", place="top")], [_scene("dog", colour="blue")]),
        ("a dog at the left side", [_scene("dog")], [_scene("dog", place="top")]),
    ],
)
def test_a_caption_is_true_where_all_that_it_says_holds(text, true, false):
    said = np.array([pair_store.said_facts(_scene("dog"), text)])
    scenes = np.array([facts(scene) for scene in [*true, *false]])
    assert is_true(scenes, said)[:, 0].tolist() == [True] * len(true) + [False] * len(false)


def test_a_caption_of_two_is_not_true_of_one():
    said = np.array([pair_store.said_facts(_scene("dog", "cat"), "a dog next to a cat")])
    scenes = np.array([facts(_scene("dog", "cat")), facts(_scene("dog"))])
    assert is_true(scenes, said)[:, 0].tolist() == [True, False]


def test_the_store_gives_every_pair_once_an_epoch_and_depends_on_the_seed_alone():
    def texts(seed, workers):
        seen = []
        store = PairStore(
            seed=seed, pairs=40, batch_size=8, drawing=DRAWING, workers=workers,
            tokenise=lambda t: (seen.append(list(t)), _tokenise(t))[1],
        )  # fmt: skip
        batches = [store[step] for step in range(10)]
        store.close()
        return seen, batches

    seen, batches = texts(0, 1)
    wanted = draw_pairs(0, 0, 40, DRAWING)
    seen = [texts for texts in seen if len(texts) == 8]  # not the concepts' names
    assert sum(seen[:5], []) == wanted.texts
    assert sorted(sum(seen[5:], [])) == sorted(wanted.texts) and seen[5:] != seen[:5]
    for batch in batches:
        assert batch["true"].diagonal().all()
    again, others = texts(0, 2)[1], texts(1, 1)[0]
    assert all((a["images"] == b["images"]).all() for a, b in zip(batches, again, strict=True))
    assert others != seen


@pytest.mark.slow
def test_the_loss_is_clips_with_shared_targets_and_names():
    tree = nn.meta.unbox(MODEL.init(jax.random.key(0)))
    params = flatten_dict(tree, sep="/")
    pairs = draw_pairs(0, 0, 6, DRAWING)
    true = is_true(pairs.scenes, pairs.said).astype(np.float32)
    true[1, 0] = true[1, 2] = 1  # some caption is true of two images
    named = pair_store.shows(pairs.scenes)
    rng = np.random.default_rng(0)
    names = [_tokenise(pair_store.name_captions(rng)) for _ in range(2)]
    tokens = _tokenise(pairs.texts)
    batch = {
        "images": pairs.images, "tokens": tokens, "true": true,
        "name_tokens": np.stack(names), "named": named,
        "attribute_tokens": _tokenise(pair_store.attribute_captions()),
        "attributes": pair_store.has_attributes(pairs.scenes),
    }  # fmt: skip

    def logits(a, b):
        scale = np.exp(np.float64(MODEL.config.logit_scale))
        return scale * np.asarray(a, np.float64) @ np.asarray(b, np.float64).T

    def rows(logits, true):
        losses = []
        for row, target in zip(logits, true, strict=True):
            log_p = row - np.log(np.exp(row).sum())
            losses.append(-np.mean(log_p[target > 0]))
        return np.mean(losses)

    a, b = MODEL.embed_images(tree, pairs.images), MODEL.embed_texts(tree, tokens)
    c, d = (MODEL.embed_texts(tree, name) for name in names)
    one = np.eye(len(CONCEPTS))
    wanted = (rows(logits(a, b), true) + rows(logits(b, a), true.T)) / 2
    wanted += rows(logits(a, c), named)
    e, start = logits(a, MODEL.embed_texts(tree, batch["attribute_tokens"])), 0
    for options in (COLOURS, BACKGROUNDS, PLACES, SIZES, CATEGORIES):
        chosen = slice(start, start := start + len(options))
        wanted += rows(e[:, chosen], batch["attributes"][:, chosen]) / 5
    wanted += (rows(logits(c, d), one) + rows(logits(d, c), one)) / 2
    np.testing.assert_allclose(contrastive_loss(params, MODEL, batch), wanted, rtol=1e-5)


def test_names_cover_every_concept_and_say_nothing_else():
    rng = np.random.default_rng(0)
    for concept, text in zip(CONCEPTS, pair_store.name_captions(rng), strict=True):
        assert any(word in text for word in (concept.name, *concept.synonyms))
        said = pair_store.said_facts(Scene(concept, "red", "white", "left", "small"), text)
        assert [CONCEPTS[said[0]]] == [concept]
        assert said[3:] == [pair_store.UNSAID] * 4


def test_attributes_are_those_of_the_scene():
    texts = np.array(pair_store.attribute_captions())
    true = pair_store.has_attributes(np.array([facts(_scene("dog", "cat"))]))[0] > 0
    assert texts[true].tolist() == [
        "a red object", "an object on a white background", "an object at the left",
        "a small object", "a photo of a kind of animal",
    ]  # fmt: skip


def test_a_image_shows_both_of_its_concepts():
    scenes = np.array([facts(_scene("dog", "cat")), facts(_scene("dog"))])
    shown = [{CONCEPTS[i].name for i in np.flatnonzero(row)} for row in pair_store.shows(scenes)]
    assert shown == [{"dog", "cat"}, {"dog"}]


def _train(folder, tokenise=_tokenise, settings=SETTINGS):
    mesh = make_mesh(data=1, fsdp=-1, tensor=1)
    return train_clip(
        MODEL, folder, settings=settings, drawing=DRAWING, tokenise=tokenise, mesh=mesh
    )


@pytest.mark.slow
def test_a_killed_training_ends_as_if_it_had_not_been(tmp_path):
    calls = []

    def dies(texts):
        calls.append(1)
        if len(calls) > 9:  # three calls a batch
            raise KeyboardInterrupt
        return _tokenise(texts)

    with pytest.raises(KeyboardInterrupt):
        _train(tmp_path / "killed", dies)
    assert {p.name for p in (tmp_path / "killed" / "checkpoints").iterdir()} == {"2"}
    seen = []
    resumed = _train(tmp_path / "killed", lambda t: (seen.append(1), _tokenise(t))[1])
    assert len(seen) == 6  # three calls a batch: steps 3 and 4 only
    whole = _train(tmp_path / "whole")
    assert resumed.keys() == whole.keys()
    for path in whole:
        np.testing.assert_array_equal(resumed[path], whole[path], err_msg=path)


def test_zero_shot_counts_right_concepts():
    names = ["dog", "dog", "knife", "knife", "cat"]
    scenes = [_scene(name, "tulip" if i == 4 else None) for i, name in enumerate(names)]
    numbers = np.array([facts(scene) for scene in scenes], np.int16)
    images = np.tile(numbers[:, :1, None, None].astype(np.uint8), (1, 2, 2, 3))
    images[0] = 0  # a dog taken for the first concept
    pairs = DrawnPairs(images, [""] * 5, numbers, numbers)
    prompts = lambda texts: np.arange(len(texts))[:, None]  # noqa: E731
    with np.errstate(all="ignore"):
        found = zero_shot({}, KnowsTheConcept(), pairs, tokenise=prompts)
    assert found["pictures"] == 4 and found["accuracy"] == 0.75  # the one with two is left out
    assert found["harmful"] == found["seen"] == 1 and found["benign"] == 0.5


class KnowsTheConcept:
    """Embeds an image and a text by the concept that both hold as a number."""

    def embed_images(self, params, images):
        return jax.numpy.eye(len(CONCEPTS))[images[:, 0, 0, 0]]

    def embed_texts(self, params, tokens):
        return jax.numpy.eye(len(CONCEPTS))[tokens[:, 0]]
