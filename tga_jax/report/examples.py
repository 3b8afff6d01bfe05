"""Example questions with the models' answers, chosen by rule and not by eye."""

from __future__ import annotations

import base64
import collections
import dataclasses
import io
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from PIL import Image

from tga_jax.report.collect import Arm
from tga_jax.report.outcomes import outcome

SIDE_PIXELS = 192
PNG_BYTES = 20_000  # a larger PNG becomes a JPEG
JPEG_QUALITY = 85

# (folder, name inside it, question id) -> the image, None where it can't be had.
Loader = Callable[[str, str, str], Image.Image | None]
Json = dict[str, Any]
Key = tuple[str, str, str]  # benchmark, question id, prompt
Kind = tuple[Any, ...]  # harmful or not, and what every arm made of it


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a model said, what became of it (of OUTCOMES), and whether it was cut off."""

    text: str
    outcome: str
    truncated: bool


@dataclasses.dataclass(frozen=True)
class Example:
    """A question; `answers` has one for each arm, None where it has none.

    Attributes:
        benchmark, scene: where it is from.
        prompt: the question.
        harmful: whether it should be refused, None where nothing says so.
        has_image: whether it is about an image.
        image: a data URI; None where there is none or it could not be read.
        answers: in the order of the arms.
    """

    benchmark: str
    scene: str
    prompt: str
    harmful: bool | None
    has_image: bool
    image: str | None
    answers: tuple[Answer | None, ...]


def choose(arms: Sequence[Arm], count: int, load: Loader) -> list[Example]:
    """At most `count` questions that the last arm was asked, from everywhere in turn.

    The benchmarks take turns, inside a benchmark its scenes, and a scene gives of the kind of
    question (harmful or not, and what every arm made of it) that was shown least so far. Of a
    kind in a scene the questions are evenly spaced.
    """
    others = [_by_key(arm) for arm in arms]
    strata = _strata(arms[-1], others)
    quotas = _quotas({place: len(found) for place, found in strata.items()}, count)
    return [
        _example(place[0], strata[place][index], others, load)
        for place, quota in quotas.items()
        for index in spaced(len(strata[place]), quota)
    ]


def _strata(
    asked: Arm, others: Sequence[dict[Key, Json]]
) -> dict[tuple[str, str, Kind], list[Json]]:
    """(benchmark, scene, kind) -> the questions, in the benchmark's own order."""
    strata: dict[tuple[str, str, Kind], list[Json]] = {}
    for benchmark, answers in asked.answers.items():
        for answer in answers:
            about, key = answer["metadata"], _key(benchmark, answer)
            found = (other.get(key) for other in others)
            kind = (about.get("harmful"), *(outcome(each) if each else None for each in found))
            strata.setdefault((benchmark, about.get("scene") or "", kind), []).append(answer)
    return strata


def _quotas(
    sizes: dict[tuple[str, str, Kind], int], count: int
) -> dict[tuple[str, str, Kind], int]:
    """How many of each stratum to show, in the order of the strata."""
    quotas, shown = dict.fromkeys(sizes, 0), collections.Counter[Kind]()
    turns = _turns([place[:2] for place in sizes])
    left = min(count, sum(sizes.values()))
    while left:
        benchmark, scene = next(turns)
        open_ = [p for p in sizes if p[:2] == (benchmark, scene) and quotas[p] < sizes[p]]
        if open_:
            place = min(open_, key=lambda p: shown[p[2]])
            quotas[place] += 1
            shown[place[2]] += 1
            left -= 1
    return quotas


def _turns(places: Sequence[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """Benchmarks in turn for ever, and of each its scenes in turn."""
    scenes: dict[str, list[str]] = {}
    for benchmark, scene in dict.fromkeys(places):
        scenes.setdefault(benchmark, []).append(scene)
    number = 0
    while True:
        for benchmark, names in scenes.items():
            yield benchmark, names[number % len(names)]
        number += 1


def spaced(total: int, count: int) -> list[int]:
    """`count` places spread evenly over `total`: the middles of as many equal parts."""
    count = min(count, total)
    return [(2 * place + 1) * total // (2 * count) for place in range(count)]


def data_uri(image: Image.Image) -> str:
    """An image of at most 192 pixels a side, as text that an <img> shows."""
    small = image.convert("RGB")
    small.thumbnail((SIDE_PIXELS, SIDE_PIXELS))
    kind, data = "png", _encoded(small, format="PNG", optimize=True)
    if len(data) > PNG_BYTES:
        kind, data = "jpeg", _encoded(small, format="JPEG", quality=JPEG_QUALITY)
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def _encoded(image: Image.Image, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, **options)
    return buffer.getvalue()


def _by_key(arm: Arm) -> dict[Key, Json]:
    return {
        _key(benchmark, answer): answer
        for benchmark, answers in arm.answers.items()
        for answer in answers
    }


def _key(benchmark: str, answer: Json) -> Key:
    return benchmark, str(answer["question_id"]), answer["prompt"]


def _answer(answer: Json | None) -> Answer | None:
    if answer is None:
        return None
    return Answer(answer["text"], outcome(answer), bool(answer["metadata"].get("truncated")))


def _example(benchmark: str, asked: Json, arms: Sequence[dict[Key, Json]], load: Loader) -> Example:
    about, key = asked["metadata"], _key(benchmark, asked)
    name = about.get("image")
    image = load(about.get("image_dir") or ".", name, str(asked["question_id"])) if name else None
    return Example(
        benchmark=benchmark,
        scene=about.get("scene") or "",
        prompt=asked["prompt"],
        harmful=about.get("harmful"),
        has_image=bool(name),
        image=None if image is None else data_uri(image),
        answers=tuple(_answer(arm.get(key)) for arm in arms),
    )
