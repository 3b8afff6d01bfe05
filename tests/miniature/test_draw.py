"""Images: deterministic, in contrast, and true to their scene."""

from dataclasses import replace

import numpy as np
import pytest

from tga_jax.errors import UserError
from tga_jax.miniature.concepts import BY_NAME, CONCEPTS
from tga_jax.miniature.draw import BACKGROUND_RGB, OBJECT_RGB, DrawSettings, draw, glyph
from tga_jax.miniature.pairs import clip_pairs
from tga_jax.miniature.scene import BACKGROUNDS, COLOURS, Scene, random_scene

STAR = Scene(BY_NAME["bed"], "black", "white", "center", "large")
PLAIN = DrawSettings(rotation_degrees=0, flip_share=0, colour_jitter=0, gradient=0, noise=0)


def _darkness(scene: Scene, seed: int = 0) -> np.ndarray:
    return 1 - draw(scene, seed, PLAIN).mean(axis=2) / 255


def test_same_scene_and_seed_same_pixels():
    np.testing.assert_array_equal(draw(STAR, 3), draw(STAR, 3))
    assert (draw(STAR, 3) != draw(STAR, 4)).any()


@pytest.mark.parametrize("side", [32, 48, 64])
def test_every_concept_fits_every_size(side):
    rng = np.random.default_rng(0)
    for concept in CONCEPTS:
        image = draw(random_scene(rng, [concept]), 0, DrawSettings(side_pixels=side))
        assert image.shape == (side, side, 3) and image.dtype == np.uint8


def test_every_pair_of_colours_has_contrast():
    def luminance(rgb):  # WCAG 2.1, relative luminance
        channel = np.asarray(rgb) / 255
        linear = np.where(channel <= 0.04045, channel / 12.92, ((channel + 0.055) / 1.055) ** 2.4)
        return linear @ [0.2126, 0.7152, 0.0722]

    assert set(OBJECT_RGB) == set(COLOURS) and set(BACKGROUND_RGB) == set(BACKGROUNDS)
    for colour in OBJECT_RGB.values():
        for background in BACKGROUND_RGB.values():
            assert (luminance(background) + 0.05) / (luminance(colour) + 0.05) >= 3


@pytest.mark.parametrize(
    ("place", "axis", "sign"),
    [("left", 1, -1), ("right", 1, 1), ("top", 0, -1), ("bottom", 0, 1)],
)
@pytest.mark.parametrize("size", ["small", "large"])
def test_the_object_is_where_the_scene_says(place, axis, sign, size):
    dark = _darkness(replace(STAR, place=place, size=size))
    line = np.linspace(-1, 1, 48)
    centre = (dark.sum(axis=1 - axis) * line).sum() / dark.sum()
    assert sign * centre > 0.1


def test_large_is_larger_than_small():
    large, small = (_darkness(replace(STAR, size=size)).sum() for size in ("large", "small"))
    assert large > 1.5 * small


def test_a_second_object_is_drawn_on_the_other_side():
    scene = Scene(BY_NAME["knife"], "black", "white", "left", "small", second=BY_NAME["apple"])
    dark = _darkness(scene)
    assert dark[:, :20].max() > 0.5 and dark[:, 28:].max() > 0.5


def test_an_unknown_icon_is_named():
    with pytest.raises(UserError, match="no_such_icon"):
        glyph("no_such_icon")


def test_clip_pairs_repeat_and_have_all_concepts():
    pairs = list(clip_pairs(1, 1000))
    again = list(clip_pairs(1, 5))
    for pair, other in zip(pairs, again, strict=False):
        assert pair.text == other.text
        np.testing.assert_array_equal(pair.image, other.image)
    assert {pair.scene.concept for pair in pairs} == set(CONCEPTS)
    assert all(pair.scene.split == "train" for pair in pairs)
