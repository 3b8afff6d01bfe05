"""The table of concepts: groups, words and icons."""

import re
from collections import Counter
from itertools import combinations

import numpy as np

from tga_jax.miniature.concepts import (
    BY_NAME,
    CATEGORIES,
    CATEGORY_BY_NAME,
    CONCEPTS,
    GROUPS,
    LOOK_ALIKES,
    concepts_of,
)
from tga_jax.miniature.draw import glyph


def test_every_group_is_large_enough():
    counts = Counter(concept.group for concept in CONCEPTS)
    assert set(counts) == set(GROUPS)
    assert counts["benign"] >= 40 and counts["seen"] >= 12
    assert counts["new_concept"] >= 8 and counts["new_category"] >= 4


def test_new_concepts_are_of_seen_categories_and_the_new_category_is_not():
    seen = {concept.category for concept in concepts_of("seen")}
    assert {concept.category for concept in concepts_of("new_concept")} <= seen
    new = {concept.category for concept in concepts_of("new_category")}
    assert len(new) == 1 and not new & seen


def test_harm_is_a_matter_of_the_category():
    assert {concept.category for concept in CONCEPTS} == set(CATEGORY_BY_NAME)
    assert all(c.harmful == CATEGORY_BY_NAME[c.category].harmful for c in CONCEPTS)


def test_no_word_means_two_things():
    names = [word for concept in CONCEPTS for word in (concept.name, *concept.synonyms)]
    names += [word for kind in CATEGORIES for word in (kind.name, kind.synonym)]
    assert len(names) == len(set(names))
    for concept, other in combinations(CONCEPTS, 2):
        if concept.harmful or other.harmful:
            mine = set(" ".join((concept.name, *concept.synonyms)).split())
            theirs = set(" ".join((other.name, *other.synonyms)).split())
            assert not mine & theirs, (concept.name, other.name)


def test_words_are_plain_lower_case():
    for concept in CONCEPTS:
        assert concept.synonyms
        for word in (concept.name, *concept.synonyms):
            assert re.fullmatch(r"[a-z]+( [a-z]+)*", word), word


def test_look_alikes_pair_a_benign_concept_with_a_harmful_one():
    for benign, harmful in LOOK_ALIKES.items():
        assert not BY_NAME[benign].harmful and BY_NAME[harmful].harmful


def test_every_icon_is_a_shape_of_its_own():
    """Correlation of the shapes at a small image's size, mirrored too."""
    shapes = []
    for concept in CONCEPTS:
        shape = np.asarray(glyph(concept.icon).resize((22, 22)), np.float32)
        shapes.append((shape - shape.mean()) / np.linalg.norm(shape - shape.mean()))
    for (one, a), (two, b) in combinations(zip(CONCEPTS, shapes, strict=True), 2):
        likeness = max((a * b).sum(), (a * b[:, ::-1]).sum())
        assert likeness < 0.86, (one.name, two.name, likeness)
