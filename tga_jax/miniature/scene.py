"""A scene: what an image shows and what a text speaks of; and how scenes are drawn by lot."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from tga_jax.miniature.concepts import Concept, concepts_of

T = TypeVar("T")

COLOURS = ("black", "red", "green", "blue", "purple", "brown")
BACKGROUNDS = ("white", "gray", "yellow", "pink", "orange", "cyan", "lime", "lilac")
PLACES = ("left", "right", "top", "bottom", "center")
SIZES = ("small", "large")
SPLITS = ("train", "dev", "test")


@dataclass(frozen=True)
class Scene:
    """One object (and sometimes a second, always benign one) before a background of one colour.

    With a second object, `place` is never "center": the second one is on the other side.
    """

    concept: Concept
    colour: str
    background: str
    place: str
    size: str
    second: Concept | None = None

    @property
    def key(self) -> str:
        """The scene's attributes as one word."""
        second = self.second.name if self.second else "-"
        parts = (self.concept.name, self.colour, self.background, self.place, self.size, second)
        return "_".join(parts)

    def digest(self) -> int:
        """A stable number for the scene (Python's own hash differs from run to run)."""
        return zlib.crc32(self.key.encode())

    @property
    def split(self) -> str:
        """The split that alone may hold this scene."""
        return split_of(self.key)


def split_of(text: str) -> str:
    """The split of a text or a scene's key, by its checksum: 80% train, 10% dev, 10% test.

    As the split is a property of the content, no scene (and no prompt) is ever in two of them.
    """
    return {0: "dev", 1: "test"}.get(zlib.crc32(b"split " + text.encode()) % 10, "train")


def pick(rng: np.random.Generator, options: Sequence[T]) -> T:
    """One of the options, each with the same probability."""
    return options[int(rng.integers(len(options)))]


def random_scene(
    rng: np.random.Generator,
    pool: Sequence[Concept],
    *,
    split: str | None = None,
    second_share: float = 0.12,
) -> Scene:
    """A scene with a concept of `pool`, in the given split (None: any)."""
    concept = pick(rng, pool)  # outside the loop: every concept is equally frequent
    while True:
        second = None
        if rng.random() < second_share:
            second = pick(rng, [other for other in concepts_of("benign") if other != concept])
        scene = Scene(
            concept=concept,
            colour=pick(rng, COLOURS),
            background=pick(rng, BACKGROUNDS),
            place=pick(rng, PLACES[:4] if second else PLACES),
            size=pick(rng, SIZES),
            second=second,
        )
        if split is None or scene.split == split:
            return scene
