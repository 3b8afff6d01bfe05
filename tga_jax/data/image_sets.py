"""Which images of the samples are there, by the public set that they belong to.

LLaVA's files name images of public sets, each in a folder of its own; where images are missing, it
helps to know of which set, and where that is loaded from.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from tga_jax.data.image_files import is_there, name_inside, place_of
from tga_jax.data.lazy_records import has_contents
from tga_jax.data.records import Record
from tga_jax.errors import UserError

# The folder in an image's name -> where its set is loaded from, as LLaVA's authors say.
ADDRESSES = {
    "coco/train2017": "http://images.cocodataset.org/zips/train2017.zip",
    "gqa/images": "https://downloads.cs.stanford.edu/nlp/data/gqa/images.zip",
    "ocr_vqa/images": (
        "https://drive.google.com/drive/folders/1_GYPY5UkUy7HIcR0zq3ZCFgeZN7BAfm_ (all as .jpg)"
    ),
    "textvqa/train_images": "https://dl.fbaipublicfiles.com/textvqa/images/train_val_images.zip",
    "vg/VG_100K": "https://cs.stanford.edu/people/rak248/VG_100K_2/images.zip",
    "vg/VG_100K_2": "https://cs.stanford.edu/people/rak248/VG_100K_2/images2.zip",
    "00000 to 00659": (
        "https://huggingface.co/datasets/liuhaotian/LLaVA-Pretrain/blob/main/images.zip"
    ),
}
PRETRAIN, PRETRAIN_NAME = "00000 to 00659", re.compile(r"\d{5}/\d+\.jpg")
OTHER_SUFFIXES = (".gif", ".png", ".jpeg", ".JPG")  # which a downloaded .jpg may have instead
SHOWN = 6  # sets that are named; the others are counted


@dataclasses.dataclass
class SetCount:
    """The images of a set that samples name, each once.

    Attributes:
        name: the folder in the images' names.
        there: how many can be found.
        missing: how many cannot.
        first: the name of the first missing one.
        renamed: how many of the missing ones are there with another suffix.
    """

    name: str
    there: int = 0
    missing: int = 0
    first: str = ""
    renamed: int = 0

    def line(self) -> str:
        """Returns what is missing, and where it is loaded from where that is known."""
        address = ADDRESSES.get(self.name)
        source = f"; the set is loaded from {address}" if address else ""
        other = f"; {self.renamed} are there with another suffix: rename them" * bool(self.renamed)
        return (
            f"images missing: {self.missing} of {self.there + self.missing} in {self.name}, "
            f"the first is {self.first}{other}{source}"
        )


def set_of(name: str) -> str:
    """Returns the set of an image: a known one, else the first folder in its name."""
    folder = "/".join(PurePosixPath(name).parts[:2])
    if folder in ADDRESSES:
        return folder
    if PRETRAIN_NAME.fullmatch(name):
        return PRETRAIN
    first, *rest = PurePosixPath(name).parts or ("",)
    return first if rest else "the image folder itself"


def count_by_set(names: Iterable[str], image_dir: Path) -> list[SetCount]:
    """Returns what is there and what is missing of these images, sets in the order of names."""
    counts: dict[str, SetCount] = {}
    for name in dict.fromkeys(names):
        count = counts.setdefault(set_of(name), SetCount(set_of(name)))
        if _is_found(image_dir, name):
            count.there += 1
        else:
            count.missing += 1
            count.first = count.first or name
            count.renamed += _has_other_suffix(image_dir, name)
    return [counts[name] for name in sorted(counts)]


def missing_lines(records: Sequence[Record], image_dir: Path) -> list[str]:
    """Returns what is to be said of missing images, by set: a line each; none where all are there.

    Prepared data has its images inside, and samples marked "tox" need none.
    """
    if has_contents(records):
        return []
    counts = count_by_set((n for r in records if not r.tox for n in r.images), image_dir)
    lacking = sorted((c for c in counts if c.missing), key=lambda c: -c.missing)
    if not lacking:
        return []
    lines = [count.line() for count in lacking[:SHOWN]]
    others = lacking[SHOWN:]
    if others:
        lines.append(f"and {sum(c.missing for c in others)} in {len(others)} other folders")
    whole = [f"{count.there} in {count.name}" for count in counts if not count.missing]
    more = [f"{len(whole) - SHOWN} other folders"] if len(whole) > SHOWN else []
    return lines + ([f"images complete: {', '.join(whole[:SHOWN] + more)}"] if whole else [])


def _has_other_suffix(image_dir: Path, name: str) -> bool:
    stem, dot, _ = name.rpartition(".")
    return bool(dot) and any(_is_found(image_dir, stem + suffix) for suffix in OTHER_SUFFIXES)


def _is_found(image_dir: Path, name: str) -> bool:
    try:
        return name_inside(image_dir, name) is not None and is_there(place_of(image_dir, name))
    except (OSError, ValueError, UserError):  # said of the sample that names it
        return False
