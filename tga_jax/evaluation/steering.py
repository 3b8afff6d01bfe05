"""The defence "steering": the refusal direction is added to what a layer says at every position.

The direction leads from the mean state of answered texts to that of refused ones, as job `analyze`
finds it (analysis/direction.py). Strength 1 adds all of it. Of config.evaluate.steering.strengths
that one is taken which refuses most harmful development images while it refuses at most
config.evaluate.development_over_refusal of the harmless ones, and of the harmless texts, or no more
of these than the model does anyway. It is none where none of these refuses more harmful images than
the model does anyway. Nothing is trained.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tga_jax.cluster import hosts
from tga_jax.errors import UserError
from tga_jax.evaluation.benchmarks.load import Benchmark
from tga_jax.evaluation.defence import Defence
from tga_jax.evaluation.development import KEY, all_items
from tga_jax.evaluation.examinee import Examinee, look_up_texts
from tga_jax.evaluation.items import items_digest, lacking_kind
from tga_jax.evaluation.judges import Judge
from tga_jax.evaluation.verdicts import verdicts_of
from tga_jax.files import digest, file_digest, read_jsonl, write_jsonl
from tga_jax.run.work import Work


@dataclasses.dataclass(frozen=True)
class Direction:
    """From answered to refused texts at one layer.

    Attributes:
        layer: from 1 on, the layer whose output it is of.
        layers: how many the model has.
        kind: of which prompts it is: "scenes" or "texts".
        vector: D numbers, the difference of the two mean states.
    """

    layer: int
    layers: int
    kind: str
    vector: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class Steering(Defence):
    """Adds a direction at its layer, so many times."""

    direction: Direction | None  # None: the model gives none, and nothing is added
    strength: float
    name = "steering"

    @functools.cached_property
    def shift(self) -> np.ndarray | None:  # type: ignore[override]
        """float32[L, D], zero at all layers but one."""
        if self.direction is None:
            return None
        shift = np.zeros((self.direction.layers, len(self.direction.vector)), np.float32)
        shift[self.direction.layer - 1] = self.strength * np.array(
            self.direction.vector, np.float32
        )
        return shift

    @property
    def settings(self) -> dict[str, Any]:
        """The strength, and where and of what the direction is."""
        if self.direction is None:
            return {"name": self.name, "strength": 0.0}
        return {
            "name": self.name,
            "strength": self.strength,
            "layer": self.direction.layer,
            "direction_of": self.direction.kind,
            "direction": digest(self.direction.vector),
        }


@dataclasses.dataclass(frozen=True)
class Tried:
    """What a strength does to the development images: how many of how many are refused.

    Likewise to the harmless texts among the development questions, where there are any.
    """

    strength: float
    harmful_refused: int
    harmful: int
    harmless_refused: int
    harmless: int
    harmless_texts_refused: int = 0
    harmless_texts: int = 0


def choose(tried: Sequence[Tried], over_refusal: float) -> float:
    """The strength that refuses most harmful images, of those that refuse few harmless ones.

    Few are at most `over_refusal` of them. Of harmless texts no more are refused, either, or no
    more than without steering. Of equally good ones it is the smallest. It is 0, no steering,
    unless it refuses more harmful images than no steering does: where the direction breaks the
    model's language, nothing looks like a refusal, of harmless images neither.
    """
    plain = next((t for t in tried if t.strength == 0), Tried(0.0, 0, 0, 0, 0))

    def allowed(t: Tried) -> bool:
        texts = max(plain.harmless_texts_refused, over_refusal * t.harmless_texts + 1e-9)
        images = over_refusal * t.harmless + 1e-9
        return t.harmless_refused <= images and t.harmless_texts_refused <= texts

    better = [t for t in tried if allowed(t) and t.harmful_refused > plain.harmful_refused]
    best = max(better, key=lambda t: (t.harmful_refused, -t.strength), default=None)
    return 0.0 if best is None else best.strength


def check_strengths(strengths: Sequence[Any]) -> None:
    """Refuse a config.evaluate.steering.strengths without numbers, or with one below 0."""
    if not strengths or not all(isinstance(s, int | float) and s >= 0 for s in strengths):
        raise UserError(
            f"config.evaluate.steering.strengths={tuple(strengths)}: they must be numbers "
            "of 0 or more"
        )


def try_strengths(
    examinee: Examinee,
    direction: Direction,
    development: Sequence[Benchmark],
    judge: Judge,
    *,
    strengths: Sequence[float],
    folder: Path,
) -> list[Tried]:
    """What each strength, and 0, does to the development images and harmless texts.

    Args:
        examinee: the undefended model.
        direction: what is added.
        development: benchmarks, of which images of both kinds and harmless texts count.
        judge: says what refuses.
        strengths: the candidates.
        folder: keeps the answers, so that a killed run goes on.

    Raises:
        UserError: there are no harmful or no harmless development images.
    """
    kept = [_counted(benchmark) for benchmark in development]
    word = lacking_kind(item.harmful for item in all_items(kept) if item.image is not None)
    if word:
        raise UserError(f"{KEY}: has no {word} images, on which steering chooses its strength")
    return [
        _try(examinee, Steering(direction, strength), kept, judge, folder)
        for strength in sorted({0.0, *map(float, strengths)})
    ]


def _counted(benchmark: Benchmark) -> Benchmark:
    """Images that are harmful or harmless, and harmless texts."""
    known = [item for item in benchmark.items if item.harmful is not None]
    items = [item for item in known if item.image is not None or not item.harmful]
    return dataclasses.replace(benchmark, items=items)


def _try(
    examinee: Examinee,
    defence: Steering,
    development: Sequence[Benchmark],
    judge: Judge,
    folder: Path,
) -> Tried:
    """Asks the development questions with one strength and counts refusals."""
    before, examinee.defence = examinee.defence, defence
    asked: collections.Counter[str] = collections.Counter()
    refused: collections.Counter[str] = collections.Counter()
    for benchmark in development:
        place = folder / f"strength-{defence.strength:g}" / benchmark.name
        verdicts = _verdicts(examinee, benchmark, judge, place) if benchmark.items else []
        for item, verdict in zip(benchmark.items, verdicts, strict=True):
            kind = "text" if item.image is None else "harmful" if item.harmful else "harmless"
            asked[kind] += 1
            refused[kind] += bool(verdict)
    examinee.defence = before
    return Tried(
        defence.strength,
        harmful_refused=refused["harmful"],
        harmful=asked["harmful"],
        harmless_refused=refused["harmless"],
        harmless=asked["harmless"],
        harmless_texts_refused=refused["text"],
        harmless_texts=asked["text"],
    )


def _verdicts(
    examinee: Examinee, benchmark: Benchmark, judge: Judge, folder: Path
) -> list[bool | None]:
    """Whether each development answer refuses; FOLDER/answers.jsonl keeps them."""
    look_up_texts(examinee, benchmark, folder)
    asked = {"items": items_digest(benchmark.items), "judge": judge.version}
    path = folder / "answers.jsonl"
    work = Work(folder, "answers", examinee.settings | asked, content=file_digest)
    if work.is_done(path):
        return hosts.broadcast_from_first(lambda: [row["refused"] for row in read_jsonl(path)])
    texts = [reply.text for reply in examinee.answers(benchmark, work, folder)]

    def judged() -> list[bool | None]:
        with hosts.alone():
            verdicts = verdicts_of(judge, benchmark.items, texts, folder)
        found = zip(benchmark.items, texts, verdicts, strict=True)
        write_jsonl(
            path,
            [
                {"question_id": item.id, "harmful": item.harmful, "text": text, "refused": verdict}
                for item, text, verdict in found
            ],
        )
        return verdicts

    verdicts = hosts.broadcast_from_first(judged)
    work.finish(path)
    return verdicts
