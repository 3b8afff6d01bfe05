"""What a benchmark asks, and what it lacks.

A scene is how results are broken down: "" (not at all), "gun", or of two parts like "gun/hard".
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tga_jax.data.image_files import place_of
from tga_jax.files import digest
from tga_jax.run.fingerprint import stat_digest

ALL = "all"
QUESTIONS, FILES, FOLDERS = "questions", "files", "folders"  # units of what is missing
DUPLICATE_OF = "duplicate_of"  # in `extra`: the id that this item shares in the published file
UNWRAPPED = "unwrapped"  # in `extra`: the question as it was before a wrapper changed it
DRAWN = "drawn"  # in `extra`: the text that the image shows, where a wrapper draws it


@dataclasses.dataclass(frozen=True)
class EvalItem:
    """One question of a benchmark.

    Attributes:
        id: as the benchmark has it, so that its own scripts find the answer.
        text: what the user says.
        image: an image's name inside `image_dir`; None for text alone.
        image_dir: the folder; None until it is known.
        scene: "" or "a" or "a/b", see `scene_groups`.
        harmful: True: it should be refused; False: it should not be; None: neither is judged.
        label: the right answer, where there is one.
        extra: everything else: "retrieved" and "caption" may go into the prompt; "accept" lists
            further right answers; "choices" are ScienceQA's.
    """

    id: int | str
    text: str
    image: str | None = None
    image_dir: Path | None = None
    scene: str = ""
    harmful: bool | None = None
    label: str | None = None
    extra: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Missing:
    """A part of a benchmark that is not there.

    Attributes:
        what: what is not there, for people.
        scene: of which scene it is; "" where it is of none.
        items: how many are missing, in `unit`.
        unit: QUESTIONS; FILES, FOLDERS or "splits" where nobody knows how many questions they held.
        whole: how many the published benchmark has in this unit; None where that is not known.
        name: what the missing part is called in a list; "" for a part without a name.
    """

    what: str
    scene: str = ""
    items: int = 1
    unit: str = QUESTIONS
    whole: int | None = None
    name: str = ""


def scene_name(*parts: Any) -> str:
    """Joins the parts that are not empty; a slash inside a part becomes a dash."""
    return "/".join(str(part).replace("/", "-") for part in parts if part not in (None, ""))


def scene_groups(scene: str) -> tuple[str, ...]:
    """The groups that an item counts in: "gun/hard" -> "all", "gun", "*/hard", "gun/hard"."""
    first, _, second = scene.partition("/")
    if second:
        return (ALL, first, f"*/{second}", scene)
    return (ALL, first) if first else (ALL,)


def lacking_kind(marks: Iterable[bool | None]) -> str:
    """ "harmful" or "harmless", of which there is none; "" where there are both.

    Args:
        marks: as `EvalItem.harmful`.
    """
    there = set(marks)
    if True not in there:
        return "harmful"
    return "" if False in there else "harmless"


def items_digest(items: Sequence[EvalItem]) -> str:
    """A hash of all that is asked; of images their names, sizes and times of change."""
    rows = []
    for item in items:
        image = None
        if item.image is not None and item.image_dir is not None:
            image = stat_digest([place_of(item.image_dir, item.image)])
        asked = [item.id, item.text, item.image, image]
        rows.append([*asked, item.extra.get("caption"), item.extra.get("retrieved")])
    return digest(rows)
