"""Which of the nearest texts an image gets: not its own caption, by rank or by lot, with noise.

A near-duplicate of an image's own text has the same normal form; or its embedding is as close as
`cosine` and it shares at least `jaccard` of the words. Both count, because each fails alone: a
small CLIP puts all captions of one thing close together, a large one does so with texts whose
first 77 tokens agree, and captions of unlike images share most of their words.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence

import numpy as np

from tga_jax.errors import UserError
from tga_jax.retrieval.index import Index
from tga_jax.retrieval.texts import jaccard, normal_form

CHOICES = ("nearest", "sampled")
DRAWS = 1000  # tries for a random text that is not the image's own


@dataclasses.dataclass(frozen=True)
class Rules:
    """config.retrieval's keys of the same names, and the run's seed."""

    seed: int
    top_k: int
    choice: str
    noise: float
    duplicate_cosine: float
    duplicate_jaccard: float

    def __post_init__(self) -> None:
        if self.choice not in CHOICES:
            raise UserError(
                f"config.retrieval.choice={self.choice!r} must be 'nearest' or 'sampled'"
            )
        if self.top_k < 1:
            raise UserError(f"config.retrieval.top_k={self.top_k} must be at least 1")
        for key in ("noise", "duplicate_jaccard"):
            if not 0 <= getattr(self, key) <= 1:
                raise UserError(f"config.retrieval.{key}={getattr(self, key)} must lie in 0..1")


@dataclasses.dataclass(frozen=True, eq=False)
class Query:
    """An image to find a text for.

    Attributes:
        id: of the record; decides its lots.
        image: its embedding, float32[E].
        own: its own texts.
        own_embeddings: of the same, float32[len(own), E].
    """

    id: str
    image: np.ndarray
    own: tuple[str, ...] = ()
    own_embeddings: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((0, 0)))


@dataclasses.dataclass(frozen=True)
class Found:
    """The chosen text; None where the index has none but the image's own.

    Attributes:
        number: its number in the index.
        score: its cosine with the image.
        excluded: how many nearer texts were the image's own.
        noised: whether it was drawn at random.
    """

    number: int | None
    score: float | None
    excluded: int
    noised: bool


def find(index: Index, queries: Sequence[Query], rules: Rules, noised: set[str]) -> list[Found]:
    """One text for each query.

    Args:
        index: where to look.
        queries: any number.
        rules: how.
        noised: ids that get a random text, see `noised_ids`.
    """
    found: list[Found | None] = [None] * len(queries)
    todo, count = list(range(len(queries))), 2 * rules.top_k
    forms = [{normal_form(text) for text in query.own} for query in queries]
    while todo:
        numbers, scores = index.search(np.stack([queries[i].image for i in todo]), count)
        whole, again = count >= len(index.texts), []
        for place, i in enumerate(todo):
            kept, excluded = _kept(index, queries[i], forms[i], numbers[place], rules)
            if len(kept) < rules.top_k and not whole:
                again.append(i)  # its own texts took the places: look further
                continue
            rank = dict(zip(numbers[place].tolist(), scores[place].tolist(), strict=True))
            found[i] = _choose(index, queries[i], forms[i], rules, noised, kept, excluded, rank)
        todo, count = again, 2 * count
    return [one for one in found if one is not None]


def _kept(
    index: Index, query: Query, forms: set[str], numbers: np.ndarray, rules: Rules
) -> tuple[list[int], int]:
    """The first `top_k` texts that are not the image's own; how many of its own came before."""
    kept: list[int] = []
    excluded = 0
    for number in numbers.tolist():
        if number < 0 or len(kept) == rules.top_k:
            continue
        if is_own(index, query, forms, number, rules):
            excluded += 1
        else:
            kept.append(number)
    return kept, excluded


def is_own(index: Index, query: Query, forms: set[str], number: int, rules: Rules) -> bool:
    """Whether text `number` is one of the image's own or a near-duplicate, as said above."""
    form = normal_form(index.texts[number].text)
    if form in forms:
        return True
    if not query.own:
        return False
    cosines = query.own_embeddings @ index.embeddings[number]
    return any(
        cosine >= rules.duplicate_cosine
        and jaccard(form, normal_form(text)) >= rules.duplicate_jaccard
        for text, cosine in zip(query.own, cosines, strict=True)
    )


def _choose(
    index: Index,
    query: Query,
    forms: set[str],
    rules: Rules,
    noised: set[str],
    kept: list[int],
    excluded: int,
    rank: dict[int, float],
) -> Found:
    rng = np.random.default_rng([rules.seed, lot(query.id, 0)])
    if query.id in noised:
        draws = (int(n) for n in rng.integers(len(index.texts), size=DRAWS) if n not in kept[:1])
        drawn = next((n for n in draws if not is_own(index, query, forms, n, rules)), None)
        if drawn is not None:
            score = float(query.image @ index.embeddings[drawn])
            return Found(drawn, score, excluded, True)
    if not kept:
        return Found(None, None, excluded, False)
    number = kept[0] if rules.choice == "nearest" else kept[int(rng.integers(len(kept)))]
    return Found(number, rank[number], excluded, False)


def noised_ids(ids: Sequence[str], rules: Rules) -> set[str]:
    """Exactly round(noise * count) of the ids, the same whatever their order."""
    ranked = sorted(set(ids), key=lambda one: (lot(one, rules.seed + 1), one))
    return set(ranked[: round(rules.noise * len(ranked))])


def lot(identifier: str, seed: int) -> int:
    """A number in 0..2**64 that the id and the seed decide."""
    raw = hashlib.sha256(f"{seed} {identifier}".encode()).digest()
    return int.from_bytes(raw[:8], "little")
