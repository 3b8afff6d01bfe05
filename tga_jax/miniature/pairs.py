"""Images with captions of *all* concepts, as a web-trained vision encoder has seen them.

Drawn in memory: a contrastive encoder wants tens of thousands of pairs, each seen about once.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from tga_jax.miniature.concepts import CONCEPTS
from tga_jax.miniature.draw import DrawSettings, draw
from tga_jax.miniature.language import caption
from tga_jax.miniature.scene import Scene, random_scene


@dataclass(frozen=True, eq=False)
class Pair:
    """An image (uint8[side, side, 3]), its caption, and the scene that both show."""

    image: np.ndarray
    text: str
    scene: Scene


def clip_pairs(
    seed: int,
    count: int,
    *,
    start: int = 0,
    split: str = "train",
    name_only_share: float = 0.5,
    drawing: DrawSettings | None = None,
) -> Iterator[Pair]:
    """`count` pairs from number `start` on, each from (seed, its number) alone.

    A share of the captions names only the concept: from captions full of attributes alone, an
    encoder learns the attributes first and the concepts late.
    """
    drawing = drawing or DrawSettings()
    for index in range(start, start + count):
        rng = np.random.default_rng([seed, 5, index])
        scene = random_scene(rng, CONCEPTS, split=split)
        form = "name" if rng.random() < name_only_share else "random"
        text = caption(scene, rng, form=form, synonym_share=0.25)
        yield Pair(draw(scene, int(rng.integers(2**31)), drawing), text, scene)
