"""Images with captions for contrastive training, drawn in other processes while it runs.

Letters: B pairs a step, T tokens, K concepts, A attribute values.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass

import numpy as np

from tga_jax.data.in_parallel import children_without_signals, end_with_parent
from tga_jax.miniature.concepts import CATEGORIES, CONCEPTS
from tga_jax.miniature.draw import DrawSettings
from tga_jax.miniature.language import SYNONYM_SHARE, caption
from tga_jax.miniature.pairs import clip_pairs
from tga_jax.miniature.scene import BACKGROUNDS, COLOURS, PLACES, SIZES, Scene, random_scene

CHUNK = 1000  # pairs drawn by one call of a worker
UNSAID = -1
_CATEGORY_NAMES = tuple(category.name for category in CATEGORIES)

Tokenise = Callable[[Sequence[str]], np.ndarray]  # texts -> int32[B, T], padded to the longest


@dataclass(frozen=True, eq=False)
class DrawnPairs:
    """Images with their captions and scenes, as arrays of all pairs.

    Attributes:
        images: uint8[N, side, side, 3].
        texts: the captions.
        scenes: int16[N, 7], each scene's facts as numbers (`facts`).
        said: int16[N, 7], the same where the caption says so, else UNSAID.
    """

    images: np.ndarray
    texts: list[str]
    scenes: np.ndarray
    said: np.ndarray


def facts(scene: Scene) -> list[int]:
    """The scene as numbers: concept, second or -2, colour, background, place, size, category."""
    second = CONCEPTS.index(scene.second) if scene.second else -2
    return [
        CONCEPTS.index(scene.concept),
        second,
        COLOURS.index(scene.colour),
        BACKGROUNDS.index(scene.background),
        PLACES.index(scene.place),
        SIZES.index(scene.size),
        _CATEGORY_NAMES.index(scene.concept.category),
    ]


def said_facts(scene: Scene, text: str) -> list[int]:
    """Those of `facts` that a caption of the scene states; UNSAID for the others."""
    words = set(text.split())
    places = {"center": {"center", "middle"}}.get(scene.place, {scene.place})
    stated = [
        True,
        scene.second is not None,
        scene.colour in words,
        scene.background in words,
        bool(places & words),
        scene.size in words,
        False,
    ]
    return [f if s else UNSAID for f, s in zip(facts(scene), stated, strict=True)]


def is_true(scenes: np.ndarray, said: np.ndarray) -> np.ndarray:
    """Which captions are true of which images: int16[N, 7], int16[M, 7] -> bool[N, M]."""
    same = scenes[:, None, :] == said[None, :, :]
    return np.all(same | (said == UNSAID)[None], axis=-1)


def shows(scenes: np.ndarray) -> np.ndarray:
    """Which concepts are in an image: int16[N, 7] -> float32[N, K]."""
    concepts = np.arange(len(CONCEPTS))
    return np.any(scenes[:, :2, None] == concepts, axis=1).astype(np.float32)


def name_captions(rng: np.random.Generator) -> list[str]:
    """A caption for each concept that names it, or a synonym of it, and says nothing else."""
    scenes = [random_scene(rng, [concept], second_share=0) for concept in CONCEPTS]
    return [caption(scene, rng, form="name", synonym_share=SYNONYM_SHARE) for scene in scenes]


# A fact's place in `facts`, its values, and a caption that says nothing else.
ATTRIBUTES = (
    (2, COLOURS, "a {} object"),
    (3, BACKGROUNDS, "an object on a {} background"),
    (4, PLACES, "an object at the {}"),
    (5, SIZES, "a {} object"),
    (6, _CATEGORY_NAMES, "a photo of a kind of {}"),
)


def attribute_captions() -> list[str]:
    """A caption for each value of each attribute: A in all."""
    return [text.format(value) for _, values, text in ATTRIBUTES for value in values]


def has_attributes(scenes: np.ndarray) -> np.ndarray:
    """Which of `attribute_captions` are true: int16[N, 7] -> float32[N, A]."""
    columns = [scenes[:, place, None] == np.arange(len(v)) for place, v, _ in ATTRIBUTES]
    return np.concatenate(columns, axis=1).astype(np.float32)


def draw_pairs(
    seed: int, start: int, count: int, drawing: DrawSettings, *, split: str = "train"
) -> DrawnPairs:
    """Draws `count` of `clip_pairs` from number `start` on."""
    pairs = list(clip_pairs(seed, count, start=start, split=split, drawing=drawing))
    return DrawnPairs(
        np.stack([pair.image for pair in pairs]),
        [pair.text for pair in pairs],
        np.array([facts(pair.scene) for pair in pairs], np.int16),
        np.array([said_facts(pair.scene, pair.text) for pair in pairs], np.int16),
    )


class PairStore:
    """Random access to the batches of a run: the batch of a step follows from (seed, step).

    The first epoch takes the pairs in their order, so that training need not wait for all of
    them to be drawn; they stay in memory for the further epochs, each in an order of its own.
    """

    def __init__(
        self,
        *,
        seed: int,
        pairs: int,
        batch_size: int,
        drawing: DrawSettings,
        tokenise: Tokenise,
        workers: int = 1,
    ) -> None:
        """Starts the drawing.

        Args:
            seed: of the pairs and their order.
            pairs: how many there are; rounded up to whole chunks.
            batch_size: pairs a step.
            drawing: how they are drawn.
            tokenise: captions -> padded tokens.
            workers: processes that draw.
        """
        chunks = -(-pairs // CHUNK)
        self._seed, self._batch_size, self._tokenise = seed, batch_size, tokenise
        self.batches_an_epoch = chunks * CHUNK // batch_size
        # Not forked: this process has XLA's threads.
        spawn = multiprocessing.get_context("spawn")
        with children_without_signals():
            self._pool = ProcessPoolExecutor(workers, spawn, initializer=end_with_parent)
            self._chunks: list[Future[DrawnPairs]] = [
                self._pool.submit(draw_pairs, seed, chunk * CHUNK, CHUNK, drawing)
                for chunk in range(chunks)
            ]

    def __getitem__(self, step: int) -> dict[str, np.ndarray]:
        """The batch of a step.

        Returns:
            "images" uint8[B, side, side, 3]; "tokens" int32[B, T]; "true" float32[B, B], 1
            where the column's caption is true of the row's image; "name_tokens" int32[2, K, T],
            two short captions for each of the K concepts that only name it; "named"
            float32[B, K], 1 where the image shows the concept; "attribute_tokens" int32[A, T]
            and "attributes" float32[B, A] likewise for all values of the attributes.
        """
        epoch, place = divmod(step, self.batches_an_epoch)
        rows = np.arange(place * self._batch_size, (place + 1) * self._batch_size)
        if epoch:
            order = np.random.default_rng([self._seed, 11, epoch]).permutation(
                len(self._chunks) * CHUNK
            )
            rows = order[rows]
        found = [(self._chunks[row // CHUNK].result(), row % CHUNK) for row in rows]
        said = np.stack([chunk.said[i] for chunk, i in found])
        scenes = np.stack([chunk.scenes[i] for chunk, i in found])
        rng = np.random.default_rng([self._seed, 13, step])
        names = self._tokenise(name_captions(rng) + name_captions(rng))
        return {
            "images": np.stack([chunk.images[i] for chunk, i in found]),
            "tokens": self._tokenise([chunk.texts[i] for chunk, i in found]),
            "true": is_true(scenes, said).astype(np.float32),
            "name_tokens": names.reshape(2, len(CONCEPTS), -1),
            "named": shows(scenes),
            "attribute_tokens": self._tokenise(attribute_captions()),
            "attributes": has_attributes(scenes),
        }

    def close(self) -> None:
        """Ends the processes that draw."""
        self._pool.shutdown(wait=True, cancel_futures=True)
