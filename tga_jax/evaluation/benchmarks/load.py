"""An entry of `config.evaluate.benchmarks` -> its questions, and what of it is missing."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tga_jax.data.image_files import is_there, place_of
from tga_jax.errors import UserError
from tga_jax.evaluation.benchmarks.read_table import read_rows, text_of
from tga_jax.evaluation.benchmarks.registry import KINDS, Entry, Kind
from tga_jax.evaluation.items import FILES, UNWRAPPED, EvalItem, Missing
from tga_jax.evaluation.wrappers import WRAPPERS, read_examples
from tga_jax.files import digest

PARTS = ("development", "test")
NO_FOLDER = Path(".")  # of images, where none is named


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """What a run asks: items in the benchmark's order, with their images seen to be there."""

    entry: Entry
    items: list[EvalItem]
    missing: list[Missing]

    @property
    def name(self) -> str:
        """Of its folder and in results."""
        return self.entry.name

    @property
    def kind(self) -> Kind:
        """How it is read and scored."""
        return KINDS[self.entry.kind]


def load(entry: Entry, *, drawings: Path, images: Path | None = None) -> Benchmark:
    """Reads the items of a benchmark and looks for their images.

    Args:
        entry: which.
        drawings: where the images that a wrapper draws will be.
        images: the image folder where neither the entry nor the layout names one.

    Raises:
        UserError: malformed content, two items of one id, an option that can't be, or options that
            leave no item.
    """
    parts: list[EvalItem | Missing] = []
    if entry.path.exists():
        folder = Path(entry.options["images"]) if "images" in entry.options else None
        parts = list(KINDS[entry.kind].read(entry.path, folder, entry.options))
        if not parts:
            parts = [_nothing(entry, "holds no questions")]
    else:
        parts = [_nothing(entry, "no such file or folder")]
    missing = [part for part in parts if isinstance(part, Missing)]
    whole = [part for part in parts if isinstance(part, EvalItem)]
    items = _limited(entry, _in_part(entry, whole))
    if whole and not items:
        raise UserError(
            f"benchmark {entry.name}: {entry.path}: the options part and limit leave none of its "
            f"{len(whole)} questions"
        )
    _check_ids(entry, items)
    _check_images(entry, items)
    present = []
    for item in (_with_folder(item, images) for item in items):
        lost = _lost_image(item)
        missing += [lost] if lost else []
        present += [] if lost else [item]
    return Benchmark(entry, _wrapped(entry, _with_retrieved(entry, present), drawings), missing)


def _nothing(entry: Entry, why: str) -> Missing:
    """The whole benchmark, of which nobody knows how many questions it would have."""
    return Missing(f"{entry.path}: {why}", unit=FILES, whole=1, name=entry.path.name)


def _in_part(entry: Entry, items: list[EvalItem]) -> list[EvalItem]:
    """Those of the option `part`: a fifth of the images (or texts) is "development", by its name.

    All questions about an image are in the same part; the rest is "test".
    """
    part = entry.options.get("part")
    if part is None:
        return items
    if part not in PARTS:
        raise UserError(f"benchmark {entry.name}: part={part!r} must be one of {', '.join(PARTS)}")
    fifths = [int(digest(item.image or item.text)[:8], 16) % 5 for item in items]
    wanted = part == PARTS[0]
    return [item for item, fifth in zip(items, fifths, strict=True) if (fifth == 0) == wanted]


def _limited(entry: Entry, items: list[EvalItem]) -> list[EvalItem]:
    """The first `limit` items of every scene."""
    if "limit" not in entry.options:
        return items
    if not entry.options["limit"].isdecimal():
        raise UserError(
            f"benchmark {entry.name}: limit={entry.options['limit']!r}: must be a number"
        )
    kept, counts = [], dict.fromkeys((item.scene for item in items), 0)
    for item in items:
        counts[item.scene] += 1
        if counts[item.scene] <= int(entry.options["limit"]):
            kept.append(item)
    return kept


def _check_images(entry: Entry, items: list[EvalItem]) -> None:
    """Refuse an image folder for questions of which none has an image: they would be texts."""
    if items and "images" in entry.options and all(item.image is None for item in items):
        raise UserError(
            f"benchmark {entry.name}: {entry.path}: the option images names a folder, but no "
            "question has an image; leave it out, or name the column of the images (?image=COLUMN "
            "of kind questions)"
        )


def _check_ids(entry: Entry, items: list[EvalItem]) -> None:
    seen: set[Any] = set()
    for item in items:
        if item.id in seen:
            raise UserError(
                f"benchmark {entry.name}: {entry.path}: two questions have the id {item.id}"
            )
        seen.add(item.id)


def _with_folder(item: EvalItem, images: Path | None) -> EvalItem:
    if item.image is None or item.image_dir is not None:
        return item
    return dataclasses.replace(item, image_dir=images or NO_FOLDER)


def _lost_image(item: EvalItem) -> Missing | None:
    if item.image is None:
        return None
    assert item.image_dir is not None
    place = place_of(item.image_dir, item.image)
    if is_there(place):
        return None
    hint = ""
    if item.image_dir == NO_FOLDER:
        hint = ", as no folder of images is named: add ?images=FOLDER to the benchmark"
    return Missing(f"{place}: no such image{hint}", item.scene)


def _with_retrieved(entry: Entry, items: list[EvalItem]) -> list[EvalItem]:
    """Adds the retrieved texts of a file {"id", "image", "text"}, as job `retrieve` writes it.

    A line whose image is another counts only where no other line has its id.
    """
    if "retrieved" not in entry.options:
        return items
    path = Path(entry.options["retrieved"])
    rows = enumerate(read_rows(path), start=1)
    found: dict[str, dict[Any, str]] = {}  # id -> image -> text
    for number, row in rows:
        text = text_of(row, "text", where=f"{path}: line {number}")
        found.setdefault(str(row.get("id")), {})[row.get("image")] = text
    texts = [_own_text(found.get(str(item.id), {}), item.image) for item in items]
    return [
        item if text is None else dataclasses.replace(item, extra={**item.extra, "retrieved": text})
        for item, text in zip(items, texts, strict=True)
    ]


def _own_text(texts: Mapping[Any, str], image: str | None) -> str | None:
    """The text of an image among those of an id; where there is one alone, that."""
    return next(iter(texts.values())) if len(texts) == 1 else texts.get(image)


def _wrapped(entry: Entry, items: list[EvalItem], drawings: Path) -> list[EvalItem]:
    name = entry.options.get("wrap")
    if name is None:
        return items
    if name not in WRAPPERS:
        raise UserError(
            f"benchmark {entry.name}: wrap={name!r} must be one of {', '.join(WRAPPERS)}"
        )
    examples = read_examples(entry.options.get("examples"))
    kept = [dataclasses.replace(i, extra={**i.extra, UNWRAPPED: i.text}) for i in items]
    return [WRAPPERS[name](item, drawings=drawings, examples=examples) for item in kept]
