"""Example questions with the models' answers, chosen by rule and not by eye."""

from __future__ import annotations

import base64
import dataclasses
import io
from collections.abc import Callable, Sequence
from typing import Any

from PIL import Image

from tga_jax.report.collect import Arm

SIDE_PIXELS = 192
PNG_BYTES = 20_000  # a larger PNG becomes a JPEG
JPEG_QUALITY = 85

# (folder, name inside it, question id) -> the picture, None where it can't be had.
Loader = Callable[[str, str, str], Image.Image | None]
Key = tuple[str, str, str]  # benchmark, question id, prompt


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a model said, whether that refuses, and whether it is right (None: not judged)."""

    text: str
    refused: bool | None
    correct: bool | None


@dataclasses.dataclass(frozen=True)
class Example:
    """A question about a picture; `answers` has one for each arm, None where it has none."""

    benchmark: str
    scene: str
    prompt: str
    harmful: bool | None
    picture: str | None  # a data URI
    answers: tuple[Answer | None, ...]


def choose(arms: Sequence[Arm], count: int, load: Loader) -> list[Example]:
    """At most `count` questions: the same number from every scene, evenly spaced in its order.

    The questions with a picture that the last arm was asked are the ones to choose from; where
    the count is no multiple of the scenes, the first scenes have one more.
    """
    scenes: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for benchmark, answers in arms[-1].answers.items():
        for answer in answers:
            if answer["metadata"].get("image"):
                scene = answer["metadata"].get("scene") or ""
                scenes.setdefault((benchmark, scene), []).append(answer)
    others = [_by_key(arm) for arm in arms]
    found = []
    for place, ((benchmark, _), answers) in enumerate(scenes.items()):
        quota = count // len(scenes) + (place < count % len(scenes))
        for index in spaced(len(answers), quota):
            found.append(_example(benchmark, answers[index], others, load))
    return found


def spaced(total: int, count: int) -> list[int]:
    """`count` places spread evenly over `total`: the middles of as many equal parts."""
    count = min(count, total)
    return [(2 * place + 1) * total // (2 * count) for place in range(count)]


def data_uri(image: Image.Image) -> str:
    """A picture of at most 192 pixels a side, as text that an <img> shows."""
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


def _by_key(arm: Arm) -> dict[Key, dict[str, Any]]:
    return {
        _key(benchmark, answer): answer
        for benchmark, answers in arm.answers.items()
        for answer in answers
    }


def _key(benchmark: str, answer: dict[str, Any]) -> Key:
    return benchmark, str(answer["question_id"]), answer["prompt"]


def _answer(answer: dict[str, Any]) -> Answer:
    said = answer["metadata"]
    return Answer(answer["text"], said.get("refused"), said.get("correct"))


def _example(
    benchmark: str, asked: dict[str, Any], arms: Sequence[dict[Key, Any]], load: Loader
) -> Example:
    about, key = asked["metadata"], _key(benchmark, asked)
    image = load(about.get("image_dir") or ".", about["image"], str(asked["question_id"]))
    answers = []
    for found in (arm.get(key) for arm in arms):
        answers.append(_answer(found) if found else None)
    return Example(
        benchmark=benchmark,
        scene=about.get("scene") or "",
        prompt=asked["prompt"],
        harmful=about.get("harmful"),
        picture=None if image is None else data_uri(image),
        answers=tuple(answers),
    )
